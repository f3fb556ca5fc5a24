"""Makes the batch of an ONNX file free that was written for a fixed one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError
from export.graph.onnx_nodes import before, keep, read_by
from export.graph.session import Session

Numbers = npt.NDArray[Any]

BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "Max", "Min"})


def freed(model: onnx.ModelProto, name_in: str, name_out: str, images: Numbers) -> onnx.ModelProto | None:
    """`model` with a free batch; None where its nodes do not allow it.

    Three `images` (3, 3, H, W) of the input's type must then be answered together as `model` answers each of them.
    """
    batch = max(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value, 1)
    session = Session(model)
    alone = [session.run(name_out, {name_in: np.stack([image] * batch)})[:1] for image in images]
    if batch == 1 and _answers(model, name_in, name_out, images, alone):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in (*changed.graph.input, *changed.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del changed.graph.value_info[:]
    try:
        _Freeing(changed, name_in, batch).run()
    except ExportError:
        return None
    return changed if _answers(changed, name_in, name_out, images, alone) else None


def _answers(model: onnx.ModelProto, name_in: str, name_out: str, images: Numbers, expected: list[Numbers]) -> bool:
    """Whether all images together, and the first alone, are answered as `expected`, each of which is (1, ...)."""
    try:
        session = Session(model)
        found = [session.run(name_out, {name_in: images[:count]}) for count in (len(images), 1)]
    except ExportError:
        return False
    wanted = np.concatenate(expected)
    return all(
        answer.shape == (count, *wanted.shape[1:]) and np.allclose(answer, wanted[:count], rtol=1e-2, atol=1e-2)
        for answer, count in zip(found, (len(images), 1), strict=True)
    )


@dataclass
class _Freeing:
    """One pass over the nodes: those that name the batch take it from their input instead."""

    model: onnx.ModelProto
    name_in: str
    batch: int
    constants: dict[str, Numbers] = field(default_factory=dict)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)  # what is computed of the image, and so has its batch in front
    read: set[str] = field(default_factory=set)  # what depends on the image: sizes that are read from it too
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: int = 0

    def run(self) -> None:
        graph = self.model.graph
        self.constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.moving, self.read = {self.name_in}, {self.name_in}
        for node in graph.node:
            if not self.read.isdisjoint(read_by(node)):
                self.read.update(node.output)
            if not self.moving.isdisjoint(read_by(node)) and node.op_type not in ("Shape", "Size"):
                self.moving.update(node.output)
                self._free(node)
            self.nodes.append(node)
        keep(graph.node, self.nodes)

    def _free(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Reshape":
            self._replace(node, 1, _reshaped)
        elif node.op_type == "Expand":
            self._replace(node, 1, lambda shape: _first(shape, 1))
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
            self._resize(node)
        elif node.op_type in BROADCAST and self.batch > 1:
            for place, name in enumerate(node.input):
                value = self._value(name)
                if value is not None and value.ndim > 1 and len(value) == self.batch and (value == value[:1]).all():
                    node.input[place] = self._constant(value[:1])

    def _replace(self, node: onnx.NodeProto, place: int, change: Callable[[Numbers], Numbers]) -> None:
        """Let `change` make a shape of the one that is input number `place`, if it begins with the batch."""
        name = node.input[place]
        value, maker = self._value(name), self.makers.get(name)
        if value is not None:
            if value.ndim == 1 and len(value) > 1 and value[0] == self.batch:
                node.input[place] = self._constant(change(value))
        elif maker is not None and maker.op_type == "Concat":  # the batch is a number, other sides are read
            first = self._value(maker.input[0])
            if first is not None and first.ndim == 1 and len(first) and first[0] == self.batch:
                number = 0 if node.op_type == "Reshape" else 1
                parts = [self._constant(_first(first, number)), *maker.input[1:]]
                node.input[place] = self._add("Concat", parts, axis=0)

    def _resize(self, node: onnx.NodeProto) -> None:
        sizes = self._value(node.input[3])
        if sizes is not None and len(sizes) == 4 and sizes[0] == self.batch:
            shape = self._add("Shape", [node.input[0]])
            ends = [self._constant(np.array([number], np.int64)) for number in (0, 1)]
            node.input[3] = self._add("Concat", [self._add("Slice", [shape, *ends]), self._constant(sizes[1:])], axis=0)

    def _value(self, name: str) -> Numbers | None:
        """The value of a tensor that does not depend on the image; None for one that does."""
        if not name or name in self.read:
            return None
        if name not in self.constants and name in self.makers:
            self.constants[name] = self._computed(name)
        return self.constants.get(name)

    def _computed(self, name: str) -> Numbers:
        maker = self.makers[name]
        if maker.op_type == "Constant" and maker.attribute[0].name == "value":
            value: Numbers = numpy_helper.to_array(maker.attribute[0].t)
            return value
        graph = self.model.graph
        nodes = [graph.node[number] for number in sorted(before(graph, name))]
        read = {given for node in nodes for given in read_by(node)}
        weights = [entry for entry in graph.initializer if entry.name in read]
        part = helper.make_graph(nodes, "part", [], [helper.make_empty_tensor_value_info(name)], weights)
        imports = self.model.opset_import
        return Session(helper.make_model(part, opset_imports=imports, ir_version=self.model.ir_version)).run(name, {})

    def _constant(self, value: Numbers) -> str:
        name = self._name()
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _add(self, kind: str, inputs: list[str], **attributes: int) -> str:
        node = helper.make_node(kind, inputs, [self._name()], **attributes)
        self.nodes.append(node)
        return str(node.output[0])

    def _name(self) -> str:
        self.made += 1
        return f"free_batch_{self.made}"


def _first(shape: Numbers, number: int) -> Numbers:
    changed = shape.copy()
    changed[0] = number
    return changed


def _reshaped(shape: Numbers) -> Numbers:
    """The batch as what is left over; where another side is that already, as the input's own first side (0)."""
    return _first(shape, 0 if (shape < 0).any() else -1)
