"""`make gpu-check`: exports each format and precision for the GPU of this host, verifies, measures, writes one report.

Needs Docker with NVIDIA's Container Toolkit; takes about an hour, most of it for TensorRT to build engines.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
from tritonclient.grpc import InferenceServerClient

from benchmarks import pictures
from benchmarks.arguments import SECONDS, exit_with, whole
from benchmarks.gpu import host, report, service, triton
from benchmarks.gpu.host import ROOT, CannotCheck
from benchmarks.gpu.report import Report, Row
from evaluation import names
from evaluation.dataset import read
from evaluation.errors import DatasetError
from evaluation.evaluate import served
from evaluation.steps import SERVED, evaluate
from export import publish, verify
from export.config import Precision
from export.errors import ExportError
from export.graph import engine
from export.options import Options
from export.sources import checkpoint
from export.sources.open import open_source
from export.sources.source import Source
from export.triton import Candidate
from gateway.triton.client import TritonClient
from gateway.triton.connection import CHANNEL_ARGUMENTS

IMAGE = "yolo-triton-gpu"
SAMPLES = ROOT / "demo" / "shapes" / "images"


class Way(NamedTuple):
    """One way to serve a model on a GPU."""

    name: str
    options: Options


WAYS = (
    Way("TensorRT provider", Options(device="gpu")),
    Way("CUDA provider", Options(device="gpu", optimize="cuda")),
    Way("engine", Options(device="gpu", format="tensorrt")),
)
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
NOBODY = "127.0.0.1:9"  # an export asks no Triton here: what is served is verified afterwards


class Check:
    """One run over all ways and precisions; what it finds goes into `report`."""

    def __init__(self, arguments: argparse.Namespace, found: Report) -> None:
        self._arguments = arguments
        self.report = found
        self._processes = max(1, min(8, found.host.cores // 2))

    def run(self) -> None:
        source = open_source(checkpoint.find(self._arguments.model, self._arguments.weights or None, say))
        engines: dict[str, float] = {}
        for way in WAYS:
            for precision in PRECISIONS:
                row = Row(way.name, precision)
                self.report.rows.append(row)
                try:
                    self._one(way, precision, row, source)
                except (CannotCheck, ExportError, DatasetError) as error:
                    row.problem = str(error)
                    say(f"{way.name} {precision}: {error}")
                if row.trtexec_rate:
                    engines[precision] = row.trtexec_rate
        for row in self.report.rows:  # one engine a precision is what all of that precision are held to
            row.trtexec_rate = row.trtexec_rate or engines.get(row.precision)

    def _one(self, way: Way, precision: Precision, row: Row, source: Source) -> None:
        model, what = self._arguments.model, f"{way.name} {precision}"
        place = self._arguments.output / what.replace(" ", "-")
        shutil.rmtree(place, ignore_errors=True)  # engines of an earlier run would make the first start a second one
        repository, engines = place / "models", place / "engines"
        engines.mkdir(parents=True)
        say(f"{what}: exporting")
        options = replace(way.options, precision=precision, model=model, name=model, repository=repository)
        begun = time.monotonic()
        version = publish.publish(source, options, lambda line: say(f"  {line}"))
        row.export_seconds = time.monotonic() - begun
        serving = publish.serving_of(options, source, lambda line: None)
        if serving.format == "tensorrt":
            row.trtexec_rate = trtexec(repository / model / str(version), serving.max_batch, serving.imgsz)
        say(f"{what}: first start")
        with triton.serving(self._arguments.image, repository, engines, model) as server:
            row.first_start_seconds = server.seconds
            with InferenceServerClient(server.url, channel_args=CHANNEL_ARGUMENTS) as client:
                inputs = verify.inputs(serving.size_hw, serving.stride, serving.fixed)
                tolerance = verify.TOLERANCES["tensorrt", serving.precision]
                row.verified = verify.Check(source.candidates, inputs)(
                    "Triton", Candidate(client, model), tolerance
                ).summary()
            row.doctor = doctor(server, model)
            row.lone_ms = triton.lone_ms(server.url, model, serving.imgsz)
            say(f"{what}: Triton alone")
            row.alone = triton.measure(server, model, serving.imgsz, self._arguments.seconds, self._processes)
            row.map50_95 = self._map(server.url, model)
            if way is WAYS[0] and precision == PRECISIONS[-1]:
                self._service(server, model, what)
        with triton.serving(self._arguments.image, repository, engines, model) as server:
            row.second_start_seconds = server.seconds

    def _map(self, url: str, model: str) -> float | None:
        if not self._arguments.data:
            return None
        client = TritonClient(url, timeout=60)
        try:
            spec = client.spec(model)
            data = read(Path(self._arguments.data), len(spec.labels))
            names.check(data.names, spec.labels)
            scores = evaluate(data, spec, served(client, spec)).scores
        finally:
            client.close()
        return scores[SERVED].map50_95

    def _service(self, server: triton.Server, model: str, what: str) -> None:
        """The whole service, once: it costs the same in front of each of them."""
        images = pictures.photographs(self._arguments.images) or pictures.photographs(SAMPLES)
        say(f"the whole service: {self._arguments.workers} workers, {len(images)} images")
        workers, tasks = self._arguments.workers, self._arguments.tasks
        self.report.service = service.measure(server, model, images, workers, tasks, self._arguments.seconds)
        self.report.service_of = f"{what}, {workers} workers with {tasks} tasks each"


def trtexec(folder: Path, batch: int, size: int) -> float:
    """Images a second by TensorRT's own tool, with copies to the GPU and back. Raises CannotCheck."""
    said = host.run(
        *("docker", "run", "--rm", "--gpus", "all", "--network", "none", "--volume", f"{folder.resolve()}:/engine:ro"),
        *(os.environ.get("TRITON_IMAGE") or engine.IMAGE, engine.TRTEXEC, "--loadEngine=/engine/model.plan"),
        *(f"--shapes=images:{batch}x{size}x{size}x3", "--duration=10"),
    )
    found = re.search(r"Throughput: ([\d.]+) qps", said)
    if found is None:
        raise CannotCheck("trtexec gave no throughput")
    return float(found[1]) * batch


def doctor(server: triton.Server, model: str) -> str:
    """The last line of doctor's report; what it finds wrong is printed."""
    command = [sys.executable, "-m", "doctor", "--url", server.url, "--metrics-url", server.metrics_url]
    done = subprocess.run([*command, "--model", model], cwd=ROOT, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
    if done.returncode:
        print("\n".join(lines), flush=True)
    return lines[-1]


def main() -> int:
    """The command. Returns 0 when all worked and every goal that can be judged here was reached, 2 without a GPU."""
    arguments, begun = parser().parse_args(), time.monotonic()
    os.environ["TRITON_URL"] = NOBODY
    try:
        host.check()
        say(f"building {arguments.image}: the first time this fetches NVIDIA's image of 15 to 20 GB")
        host.run("docker", "build", *build_options(), "--tag", arguments.image, str(ROOT))
        found = Report(host.look(arguments.image), arguments.model, arguments.data or "no DATA= was given")
        Check(arguments, found).run()
    except (CannotCheck, ExportError) as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    found.seconds = time.monotonic() - begun
    (arguments.output / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    page = report.markdown(found)
    (arguments.output / "report.md").write_text(page)
    print(page)
    print(f"written to {arguments.output}")
    return 1 if report.failed(found) else 0


def build_options() -> Iterator[str]:
    yield from ("--file", str(ROOT / "docker" / "triton-gpu.Dockerfile"))
    if image := os.environ.get("TRITON_IMAGE"):
        yield from ("--build-arg", f"IMAGE={image}")


def say(text: str) -> None:
    print(f"gpu-check: {text}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    shared = Path(os.environ.get("YOLO_SHARED") or ROOT.parent / "shared")
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = made.add_argument
    add("--model", default="yolov5n", help="the model (default yolov5n)")
    add("--weights", default="", help="its checkpoint, where it has another name")
    add("--data", default="", help="data set in YOLO's format for the mAP (default: none is measured)")
    add("--images", type=Path, default=shared / "images", help="photographs for the whole service (*.jpg)")
    add("--workers", type=whole(1, 64), default=8)
    add("--tasks", type=whole(1, 64), default=8, help="tasks of one worker at a time (default 8)")
    add("--image", default=IMAGE, help="the image that serves")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    quick = os.environ.get("QUICK") == "1"
    add("--seconds", type=SECONDS, default=5.0 if quick else 20.0, help="of each load (default 20, with QUICK=1 5)")
    return made


if __name__ == "__main__":
    exit_with(main)
