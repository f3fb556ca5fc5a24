"""From a checkpoint to a published version."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export import declared, repository, triton, verify
from export.config import Device, Format, Serving, config_pbtxt
from export.contract import Graph, breaches
from export.errors import ExportError
from export.graph import engine, session
from export.options import Options
from export.sources import checkpoint
from export.sources.open import open_source
from export.sources.source import Source

Report = Callable[[str], None]


def export(options: Options, report: Report) -> int:
    """Export what `options` ask for; returns the number of the published version.

    Raises ExportError, with the repository as it was.
    """
    repository.check_name(options.name)
    triton.address()  # a wrong TRITON_URL is reported before the work, not after it
    path = checkpoint.find(options.model, options.weights, report)
    report(f"loading {path}")
    return publish(open_source(path), options, report)


def publish(source: Source, options: Options, report: Report) -> int:
    """Write, verify and publish `source`; as `export`."""
    serving = serving_of(options, source, report)
    with repository.staging(options.repository, options.name) as staged:
        report(f"writing {serving.file_name}: {len(source.labels)} classes, {shape_of(serving)}, {serving.precision}")
        source.write(staged.version / "model.onnx", serving)
        graph = hashlib.sha256((staged.version / "model.onnx").read_bytes()).hexdigest()
        (staged.folder / "config.pbtxt").write_text(config_pbtxt(serving, graph))
        (staged.folder / "labels.txt").write_text("".join(f"{label}\n" for label in source.labels))
        findings = build_and_verify(source.candidates, staged, serving, report)
        findings["export"] = provenance(serving, source.path)
        (staged.version / "verify.json").write_text(json.dumps(findings, indent=1) + "\n")
        number = staged.publish(after=known_version(options.name))
    report(f"published {options.repository / options.name} version {number}")
    load_version(options.name, number, options.device, report)
    for removed in repository.prune(options.repository / options.name, options.keep):
        report(f"removed version {removed}; the last {options.keep} are kept")
    return number


def build_and_verify(
    expected: verify.Source, staged: repository.Staged, serving: Serving, report: Report
) -> dict[str, Any]:
    """Compare what is staged with its source, in each runtime; the findings for verify.json.

    An engine is built in between: it takes minutes, and comes from an ONNX file that is known to be right.
    Raises VerificationError.
    """
    inputs = verify.inputs(serving.imgsz, serving.stride, serving.square)
    report(f"verifying on {len(inputs)} images")
    check = verify.Check(expected, inputs)
    file = staged.version / "model.onnx"
    written = session.Deployed(file)
    check_contract((staged.folder / "config.pbtxt").read_text(), declared.graph(file))
    tolerance = verify.TOLERANCES["onnx", serving.precision]
    verify.check_batches(written.batch, inputs, serving.max_batch, tolerance)
    found = check("ONNX Runtime", written, tolerance)
    report(f"ONNX Runtime: {found.summary()}")
    if serving.format == "tensorrt":
        engine.build(staged.version, serving, report)
        file.unlink()  # the engine is served, not what it was built from
    ask_triton(check, staged, serving, report)
    return check.findings()


def check_contract(config_pbtxt: str, graph: Graph) -> None:
    """Raises ExportError when Triton's own backend would refuse the model, or ignore what the config says."""
    for breach in breaches(declared.as_json(config_pbtxt), graph):
        would = "would refuse the model" if breach.refused else "would not do what the config says"
        raise ExportError(f"Triton's ONNX Runtime backend {would}: {breach.words}; nothing was published")


def ask_triton(check: verify.Check, staged: repository.Staged, serving: Serving, report: Report) -> None:
    """Let a running Triton answer too. One that was not named and has no GPU is no judge of a model for a GPU."""
    with triton.running() as server:
        if server is None:
            report(f"Triton: none answers at {triton.address()}, not asked")
            return
        try:
            with server.candidate(serving.name, staged.folder, serving.device) as candidate:
                # A GPU multiplies float32 as TF32, by whichever provider.
                kind: Format = "tensorrt" if serving.device == "gpu" else "onnx"
                found = check("Triton", candidate, verify.TOLERANCES[kind, serving.precision])
                report(f"Triton: {found.summary()}")
        except triton.Refused as refusal:
            if serving.device == "cpu" or "TRITON_URL" in os.environ:
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


def load_version(name: str, version: int, device: Device, report: Report) -> None:
    """Let a running Triton serve the new version; without one there is nothing to do."""
    with triton.running() as server:
        if server is not None:
            wrong = server.load_version(name, version, device)
            report(
                f"Triton at {server.url} " + (f"did not take it up: {wrong}" if wrong else f"serves version {version}")
            )


def provenance(serving: Serving, source: Path) -> dict[str, str]:
    """What `--list` shows of an export."""
    return {
        "source": source.name,
        "format": serving.format,
        "precision": serving.precision,
        "device": serving.device,
        "input": f"{serving.imgsz} {'square' if serving.square else 'least padding'}",
        "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def serving_of(options: Options, source: Source, report: Report) -> Serving:
    """The settings of config.pbtxt; raises ExportError when what was asked for does not fit the source."""
    imgsz = options.imgsz or source.fixed_size or (1280 if source.stride == 64 else 640)
    if imgsz % source.stride:
        below, above = imgsz // source.stride * source.stride, -(-imgsz // source.stride) * source.stride
        fitting = f"{below} or {above}" if below else str(above)
        raise ExportError(f"IMGSZ={imgsz} is no multiple of the model's stride {source.stride}; use {fitting}")
    if source.fixed_size not in (None, imgsz):
        raise ExportError(f"IMGSZ={imgsz}, but {source.path} was written for {source.fixed_size}; leave IMGSZ away")
    precision = source.fixed_precision or options.precision
    if options.precision == "fp16" != precision:
        raise ExportError(f"{source.path} is float32; for PRECISION=fp16 give the .pt, or an .onnx written with --half")
    if source.one_image and options.batch != 1:
        report(f"{source.path} takes one image at a time: no batches; an .onnx written with --dynamic has them")
    return Serving(
        name=options.name,
        imgsz=imgsz,
        stride=source.stride,
        square=options.square
        or options.device == "gpu"
        or source.fixed_size is not None,  # requests of different shapes cannot share a batch
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
    return (
        f"{serving.imgsz}x{serving.imgsz} square"
        if serving.square
        else f"up to {serving.imgsz}x{serving.imgsz}, least padding"
    )
