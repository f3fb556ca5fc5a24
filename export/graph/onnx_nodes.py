"""The nodes of an ONNX file: which of them an output needs, in an order in which they can run, in a known opset."""

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import version_converter

from export.errors import ExportError

LEAST_OPSET = 11  # what stands around the file's nodes is written from here on
MOST_IR = 10  # what ONNX Runtime 1.20 knows; later versions add nothing that a detector has


def tidy(model: onnx.ModelProto, output: str) -> None:
    """Leave the nodes alone on which `output` depends, each behind those that it reads.

    ONNX asks for that order, ONNX Runtime does not, and converters to half precision break it. Weights are no inputs of
    the graph, as they are in files of IR version 3, and that version is at most MOST_IR. Raises ExportError when nodes
    wait for each other.
    """
    graph = model.graph
    weights = {entry.name for entry in (*graph.initializer, *graph.sparse_initializer)}
    keep(graph.input, (entry for entry in graph.input if entry.name not in weights))
    keep(graph.output, (entry for entry in graph.output if entry.name == output))
    model.ir_version = min(max(model.ir_version, 4), MOST_IR)
    nodes, wanted = list(graph.node), before(graph, output)
    order = [number for number in range(len(nodes)) if number in wanted]
    if any(earlier > number for number in order for earlier in wanted[number]):
        try:
            order = list(TopologicalSorter(wanted).static_order())
        except CycleError as error:
            raise ExportError("nodes of the ONNX file wait for each other; export it again") from error
    keep(graph.node, (nodes[number] for number in order))


def keep(entries: object, wanted: Iterable[object]) -> None:
    """Leave only `wanted` in a repeated field of a protobuf message."""
    kept = list(wanted)
    del entries[:]  # type: ignore[attr-defined]
    entries.extend(kept)  # type: ignore[attr-defined]


def before(graph: onnx.GraphProto, output: str) -> dict[int, set[int]]:
    """The numbers of the nodes on which `output` depends, each with those of the nodes that it reads."""
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    found: dict[int, set[int]] = {}
    ahead = [makers[output]] if output in makers else []
    while ahead:
        number = ahead.pop()
        if number not in found:
            found[number] = {makers[name] for name in read_by(graph.node[number]) if name in makers}
            ahead.extend(found[number])
    return found


def read_by(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, those inside its branches and loops too."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= read_by(inner)
    return names


def opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def upgrade(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with LEAST_OPSET at least. Raises ExportError when a node has no meaning there."""
    if opset(model) >= LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, LEAST_OPSET)
    except (RuntimeError, onnx.checker.ValidationError, version_converter.ConvertError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"the ONNX file has opset {opset(model)}, and a node of it cannot be brought to {LEAST_OPSET} ({reason}); "
            f"export it again with opset {LEAST_OPSET} or later"
        ) from error
