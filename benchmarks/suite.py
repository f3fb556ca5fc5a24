"""What is measured, in which order, for how long."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import redis

from benchmarks import pictures
from benchmarks.arms import Loader, NotStarted, Peers, Service, loading
from benchmarks.load import Plan, Sample
from benchmarks.results import ArmFigures, Latency, Report, latency_of
from benchmarks.senders import Target
from gateway.redis_names import QUEUE_KEY
from gateway.triton.spec import ModelSpec

CORES = 2  # sessions of bare ONNX Runtime, workers of each peer
_DRAINED, _DRAINS = 100, 5  # a clock of 10 ms: fewer tasks would tell nothing

PEER_NAMES = ("litserve", "mosec", "flask_celery")


@dataclass(frozen=True)
class Pace:
    """How long each part takes, seconds, and how often the arms take their turns."""

    rounds: int
    turn: float
    clients: int
    sweep: tuple[int, ...]
    sweep_turn: float
    open_turn: float
    queued: tuple[int, ...]


FULL = Pace(rounds=4, turn=4, clients=8, sweep=(1, 2, 4, 8, 16, 32), sweep_turn=4, open_turn=10, queued=(100, 10_000))
QUICK = Pace(rounds=1, turn=2, clients=8, sweep=(1, 4, 16), sweep_turn=2, open_turn=4, queued=())


@dataclass
class Suite:
    """One run of all measurements; `service` is up, the peers are started here and stopped with `exits`."""

    pace: Pace
    service: Service
    spec: ModelSpec
    images: list[Path]
    onnx: Path
    peers: Peers
    folder: Path
    exits: ExitStack
    say: Callable[[str], None]
    loaders: dict[str, Loader] = field(default_factory=dict)
    large: dict[str, Loader] = field(default_factory=dict)

    def run(self) -> Report:
        report = Report(
            machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            model=f"{self.spec.name} at {max(self.spec.size_hw)}",
            images=len(self.images),
            began=time.strftime("%Y-%m-%d %H:%M:%S"),
            load_before=os.getloadavg()[0],
        )
        self._start(report)
        self._turns(report)
        self._turns_large(report)
        self._one_client(report)
        self._sweep(report)
        self._open_loop(report)
        self._outside_triton(report)
        self._queued(report)
        report.load_after = os.getloadavg()[0]
        return report

    def _start(self, report: Report) -> None:
        self.say("starting the arms")
        sent = [str(image) for image in self.images]
        tensors = pictures.tensors(
            self.images, self.spec.size_hw, self.spec.stride, self.spec.fixed, self._folder("tensors")
        )
        ready = [str(tensor) for tensor in tensors]
        large = [str(image) for image in pictures.enlarged(self.images, self._folder("large"))]
        ours = Target("raw", sent, self.service.address, "/predict?wait=60")
        self._add(report, "ours", ours, large)
        self._add(report, "triton", Target("triton", ready, self.service.triton_address, self.spec.name))
        self._add(report, "onnxruntime", Target("onnxruntime", ready, path=str(self.onnx)))
        for name in PEER_NAMES:
            try:
                target = self.exits.enter_context(getattr(self.peers, name)(self._folder(name)))
                target.images = sent
                self._add(report, name, target, [] if name == "flask_celery" else large)
            except NotStarted as error:
                report.arms[name] = ArmFigures(skipped=str(error))
                self.say(f"{name} is skipped: {error}")

    def _add(self, report: Report, name: str, target: Target, large: list[str] | None = None) -> None:
        loader = self.exits.enter_context(loading(target, self.folder, name))
        report.arms[name] = ArmFigures(objects=sum(len(rows) for rows in loader.first))
        self.loaders[name] = loader
        if large:
            target = Target(target.kind, large, target.address, target.path)
            self.large[name] = self.exits.enter_context(loading(target, self.folder, f"{name}-large"))

    def _turns(self, report: Report) -> None:
        for number in range(self.pace.rounds):
            self.say(f"throughput, round {number + 1} of {self.pace.rounds}")
            for name, loader in self.loaders.items():
                clients = CORES if name == "onnxruntime" else self.pace.clients
                sample = self._measure(report, name, loader, Plan(clients, self.pace.turn))
                report.arms[name].rates.append(sample.rate)
                if name == "ours":
                    report.steps_ms[self.pace.clients] = means(sample)

    def _turns_large(self, report: Report) -> None:
        for number in range(max(self.pace.rounds - 1, 1)):
            self.say(f"12 megapixels, round {number + 1}")
            for name, loader in self.large.items():
                sample = self._measure(report, name, loader, Plan(self.pace.clients, self.pace.turn))
                report.arms[name].large_rates.append(sample.rate)
                if name == "ours":
                    report.large_steps_ms = means(sample)

    def _one_client(self, report: Report) -> None:
        self.say("one client at a time")
        for _ in range(self.pace.rounds):
            for name in ("ours", "triton"):
                sample = self._measure(report, name, self.loaders[name], Plan(1, self.pace.turn))
                report.arms[name].alone_p50_ms.append(statistics.median(sample.latencies_ms or [0.0]))
                if name == "ours":
                    report.steps_ms[1] = means(sample)

    def _sweep(self, report: Report) -> None:
        for clients in self.pace.sweep:
            self.say(f"{clients} clients")
            for name in ("ours", "triton"):
                sample = self._measure(report, name, self.loaders[name], Plan(clients, self.pace.sweep_turn))
                report.closed.setdefault(name, {})[clients] = latency_of(sample)

    def _open_loop(self, report: Report) -> None:
        capacity = statistics.median(report.arms["ours"].rates)
        for share in (50, 70, 90):
            self.say(f"open loop at {share} % of {capacity:.1f} images/s")
            plan = Plan(64, self.pace.open_turn, rate=max(capacity * share / 100, 0.1))
            figures: Latency = latency_of(self._measure(report, "ours", self.loaders["ours"], plan))
            report.open_loop[share] = figures

    def _outside_triton(self, report: Report) -> None:
        small = pictures.of_size(self.images, 640) or self.images
        self.say(f"CPU per image, {len(small)} photographs of 640 pixels")
        target = Target("raw", [str(image) for image in small], self.service.address, "/predict?wait=60")
        with loading(target, self.folder, "small") as loader:
            before = self.service.cpu()
            sample = self._measure(report, "ours", loader, Plan(self.pace.clients, 2 * self.pace.turn))
            after = self.service.cpu()
        ended = max(len(sample.latencies_ms), 1)
        # All that ended count, those of the warming too: their CPU time is in the difference.
        ended = round(ended * (1 + 0.5 / sample.seconds))
        report.cpu_ms = {role: (after[role] - before[role]) / ended * 1e3 for role in after}
        report.memory_mb = self.service.memory()

    def _queued(self, report: Report) -> None:
        """CPU time of gateway, worker and Redis for a task, with a short and a long queue."""
        image = min(self.images, key=lambda path: path.stat().st_size).read_bytes()
        with redis.Redis(port=self.service.redis_port) as connection, httpx.Client(trust_env=False) as client:
            for depth in self.pace.queued:
                self.say(f"{depth} queued tasks")
                report.queued_ms[depth] = self._drain(depth, image, connection, client)

    def _drain(self, depth: int, image: bytes, connection: "redis.Redis", client: httpx.Client) -> dict[str, float]:
        """Milliseconds of the last uploads into a queue of that depth, and of the first tasks taken from it."""
        url, workers = f"http://{self.service.address}/predict?max_det=20", self.service.processes["worker"]
        upload_seconds = task_seconds = taken = 0.0
        for_each(workers, psutil.Process.suspend)
        try:
            for _ in range(depth - _DRAINED):
                client.post(url, content=image).raise_for_status()
            for _ in range(_DRAINS):
                for_each(workers, psutil.Process.suspend)
                begun = self.service.cpu()
                for _ in range(_DRAINED):
                    client.post(url, content=image).raise_for_status()
                accepted, queued = self.service.cpu(), connection.llen(QUEUE_KEY)
                for_each(workers, psutil.Process.resume)
                while (waiting := connection.llen(QUEUE_KEY)) > max(queued - _DRAINED, 0):
                    time.sleep(0.02)
                drained = self.service.cpu()
                taken += queued - waiting
                upload_seconds += sum(accepted[role] - begun[role] for role in ("gateway", "redis"))
                task_seconds += sum(drained[role] - accepted[role] for role in ("worker", "redis", "gateway"))
        finally:
            for_each(workers, psutil.Process.resume)
        connection.delete(QUEUE_KEY)
        return {"upload": upload_seconds / _DRAINS / _DRAINED * 1e3, "task": task_seconds / taken * 1e3}

    def _measure(self, report: Report, name: str, loader: Loader, plan: Plan) -> Sample:
        sample = loader.run(plan)
        figures = report.arms[name]
        figures.wrong += sample.wrong
        figures.failed += sample.failed
        if sample.first_failure:
            figures.first_failure = figures.first_failure or sample.first_failure
        return sample

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def means(sample: Sample) -> dict[str, float]:
    """The mean of each step of the receipts, milliseconds."""
    steps: dict[str, list[float]] = {}
    for receipt in sample.timings_ms:
        for step, value in receipt.items():
            steps.setdefault(step, []).append(value)
    return {step: statistics.fmean(values) for step, values in steps.items()}


def for_each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        act(process)
