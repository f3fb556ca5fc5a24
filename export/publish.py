"""From a checkpoint to a published version."""

import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from export import declared, facts, model_name, repository, triton, verify, versions
from export.config import COLUMNS, Device, Format, Serving, config_pbtxt, rows_of
from export.contract import breaches
from export.errors import ExportError
from export.graph import engine, session
from export.options import Options
from export.sources import checkpoint, class_names
from export.sources.open import open_source
from export.sources.source import Source

Report = Callable[[str], None]


def export(options: Options, report: Report) -> int:
    """Export what `options` ask for; returns the number of the published version.

    Raises ExportError, with the repository as it was.
    """
    model_name.check(options.name)
    names = class_names.read(options.names) if options.names else None
    triton.address()  # a wrong TRITON_URL is reported before the work, not after it
    path = checkpoint.find(options.model, options.weights, report)
    report(f"loading {path}")
    return publish(open_source(path, names), options, report)


def publish(source: Source, options: Options, report: Report) -> int:
    """Write, verify and publish `source`; as `export`."""
    serving = serving_of(options, source, report)
    model = options.repository / options.name
    with repository.staging(options.repository, options.name) as staged:
        report(f"writing {serving.file_name}: {len(source.labels)} classes, {shape_of(serving)}, {serving.precision}")
        source.write(staged.folder / "model.onnx", serving)
        graph = hashlib.sha256((staged.folder / "model.onnx").read_bytes()).hexdigest()
        (staged.folder / versions.LABELS).write_text("".join(f"{label}\n" for label in source.labels))
        findings = build_and_verify(source.candidates, staged.folder, serving, config_pbtxt(serving, graph), report)
        if (staged.folder / "model.onnx").is_file():
            facts.state(staged.folder / "model.onnx", facts.Facts(len(source.labels), source.stride))
        findings["export"] = provenance(serving, source.path)
        (staged.folder / "verify.json").write_text(json.dumps(findings, indent=1) + "\n")
        with versions.locked(model), versions.undone_on_error(model):
            number = staged.next_number(after=known_version(options.name))
            (staged.folder / versions.CONFIG).write_text(config_pbtxt(serving, graph, number))
            versions.keep_facts(model)
            staged.publish(number)
            versions.use(model, number)
            report(f"published {model} version {number}")
            if load_version(options.name, number, options.device, report):
                for removed in repository.prune(model, options.keep, number):
                    report(f"removed version {removed}; the last {options.keep} are kept")
    return number


def build_and_verify(
    expected: verify.Source, staged: Path, serving: Serving, config: str, report: Report
) -> dict[str, Any]:
    """Compare what is in the folder `staged` with its source, in each runtime; the findings for verify.json.

    An engine is built in between: it takes minutes, and comes from an ONNX file that is known to be right.
    Raises VerificationError.
    """
    inputs = verify.inputs(serving.size_hw, serving.stride, serving.fixed)
    report(f"verifying on {len(inputs)} images")
    check = verify.Check(expected, inputs)
    file = staged / "model.onnx"
    written = session.Deployed(file)
    check_contract(config, (staged / versions.LABELS).read_text().splitlines(), onnx.load(str(file)))
    tolerance = verify.TOLERANCES["onnx", serving.precision]
    verify.check_batches(written.batch, inputs, serving.max_batch, tolerance)
    found = check("ONNX Runtime", written, tolerance)
    report(f"ONNX Runtime: {found.summary()}")
    if serving.format == "tensorrt":
        engine.build(staged, serving, report)
        file.unlink()  # the engine is served, not what it was built from
    ask_triton(check, staged, serving, config, report)
    return check.findings()


def check_contract(config_pbtxt: str, labels: Sequence[str], model: onnx.ModelProto) -> None:
    """Raises ExportError when Triton's own backend would refuse the model, or config or labels are not the graph's."""
    for breach in breaches(declared.as_json(config_pbtxt), declared.graph_of(model)):
        would = "would refuse the model" if breach.refused else "would not do what the config says"
        raise ExportError(f"Triton's ONNX Runtime backend {would}: {breach.words}; nothing was published")
    for mistake in facts.mistakes(declared.parse(config_pbtxt), labels, facts.of(model)):
        raise ExportError(f"{mistake.title}: {mistake.what}; nothing was published")


def ask_triton(check: verify.Check, staged: Path, serving: Serving, config: str, report: Report) -> None:
    """Let a running Triton answer too."""
    with triton.running() as server:
        if server is None:
            report(f"Triton: none answers at {triton.address()}, not asked")
            return
        try:
            with server.candidate(serving.name, staged, config, serving.device) as candidate:
                # A GPU multiplies float32 as TF32, by whichever provider.
                kind: Format = "tensorrt" if serving.device == "gpu" else "onnx"
                found = check("Triton", candidate, verify.TOLERANCES[kind, serving.precision])
                report(f"Triton: {found.summary()}")
        except triton.Refused as refusal:
            if is_judge(serving.device):
                raise
            report(f"Triton: not asked, it is no server for this model ({refusal})")
        except triton.NotAsked:
            report(f"Triton: not asked, the one at {server.url} runs without --model-control-mode=explicit")


def known_version(name: str) -> int:
    """The highest version that a running Triton knows, 0 where there is none.

    A number is not used twice, even where the model's folder was removed: workers know a version's labels by it.
    """
    with triton.running() as server:
        return server.newest_version(name) if server is not None else 0


def load_version(name: str, version: int, device: Device, report: Report) -> bool:
    """Let a running Triton serve the new version. Raises ExportError when it does not load it.

    False for a Triton that is no judge of the model, as in `ask_triton`: it goes on with the old version.
    """
    with triton.running() as server:
        if server is None:
            return True
        try:
            report(server.take_up(name, version, device))
        except triton.Refused as refusal:
            if is_judge(device):
                raise ExportError(
                    f"Triton at {server.url} does not load version {version}: {refusal}; the one before stays in use, "
                    f"`make export-model USE={version} NAME={shlex.quote(name)}` tries it again"
                ) from refusal
            report(f"Triton at {server.url} did not take it up: {refusal}")
            return False
    return True


def is_judge(device: Device) -> bool:
    """Whether the running Triton decides: one that was not named and has no GPU says nothing of a model for a GPU."""
    return device == "cpu" or "TRITON_URL" in os.environ


def provenance(serving: Serving, source: Path) -> dict[str, str]:
    """What `--list` shows of an export."""
    return {
        "source": source.name,
        "format": serving.format,
        "precision": serving.precision,
        "device": serving.device,
        "input": shape_of(serving),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def size_of(options: Options, source: Source) -> tuple[int, int]:
    """Height and width of the input, pixels; raises ExportError where the source cannot have them."""
    fixed_h, fixed_w = source.fixed_hw
    if fixed_h and fixed_w and options.imgsz in (None, max(fixed_h, fixed_w)):
        return fixed_h, fixed_w
    wanted = options.imgsz or fixed_h or fixed_w or (1280 if source.stride == 64 else 640)
    height, width = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    given = f"IMGSZ={height},{width}" if isinstance(wanted, tuple) else f"IMGSZ={wanted}"
    if fixed_h not in (None, height) or fixed_w not in (None, width):
        written = f"{fixed_h or 'any'} high and {fixed_w or 'any'} wide"
        raise ExportError(f"{given}, but {source.path} was written for images {written}; leave IMGSZ away")
    for side in (height, width):
        if side % source.stride:
            below, above = side // source.stride * source.stride, -(-side // source.stride) * source.stride
            fitting = f"{below} or {above}" if below else str(above)
            raise ExportError(f"{given}: {side} is no multiple of the model's stride {source.stride}; use {fitting}")
    return height, width


def rows_for(options: Options, source: Source, size_hw: tuple[int, int]) -> int:
    """At least a number for each label: Triton tells no more labels than an answer has numbers."""
    least = -(-len(source.labels) // COLUMNS)
    if options.rows is not None and options.rows < least:
        raise ExportError(f"ROWS={options.rows} is too few for {len(source.labels)} classes; give {least} or more")
    return options.rows or max(least, rows_of(source.density * size_hw[0] * size_hw[1]))


def serving_of(options: Options, source: Source, report: Report) -> Serving:
    """The settings of config.pbtxt; raises ExportError when what was asked for does not fit the source."""
    size_hw = size_of(options, source)
    precision = source.fixed_precision or options.precision or "fp32"
    if options.precision == "fp16" != precision:
        raise ExportError(f"{source.path} is float32; for PRECISION=fp16 give the .pt, or an .onnx written with --half")
    if options.precision == "fp32" != precision:
        raise ExportError(f"{source.path} computes in float16; for PRECISION=fp32 give the .pt, or leave it away")
    if source.one_image and options.batch != 1:
        report(f"{source.path} takes one image at a time: no batches; an .onnx written with --dynamic has them")
    return Serving(
        name=options.name,
        imgsz=max(size_hw),
        stride=source.stride,
        square=options.square
        or options.device == "gpu"  # requests of different shapes cannot share a batch
        or isinstance(options.imgsz, tuple)
        or source.fixed_hw != (None, None),
        rows=rows_for(options, source, size_hw),
        sides_hw=None if size_hw[0] == size_hw[1] else size_hw,
        device=options.device,
        format=options.format,
        precision=precision,
        batch=options.batch,
        one_image=source.one_image,
        instances=options.instances,
        delay_us=options.delay_us,
        optimize=options.optimize or "tensorrt",
    )


def shape_of(serving: Serving) -> str:
    """Height x width."""
    height, width = serving.size_hw
    if not serving.fixed:
        return f"up to {height}x{width}, least padding"
    return f"{height}x{width} {'square' if height == width else 'fixed'}"
