"""`python -m benchmarks.costs`: what all around the model costs, against another commit and other servers.

The model costs nothing (`benchmarks.constant_model`). All arms run at once and are measured in turn; CPU time is that
of every process of an arm, its supervision included. `--against` names a checkout that was made ready by `make setup`.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import arms, constant_model, pictures, say
from benchmarks.arguments import CLIENTS, ROUNDS, SECONDS, exit_with
from benchmarks.load import Plan
from benchmarks.plan import WORKER_TASKS
from benchmarks.results import AROUND, table
from benchmarks.senders import Target
from local import processes
from local.ports import free_ports

OURS = "this"
NO_METRICS = {"METRICS_PORT": "0", "WORKER_METRICS_PORT": "0"}


@dataclass
class Arm:
    """A running server, and what was measured of it in each round."""

    root: psutil.Process
    loader: arms.Loader
    cpu_ms: list[float] = field(default_factory=list)
    parts_ms: list[dict[str, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    wrong: int = 0

    def measure(self, clients: int, seconds: float) -> None:
        before = self._cpu_seconds()
        sample = self.loader.run(Plan(clients, seconds))
        used = {part: seconds - before.get(part, 0.0) for part, seconds in self._cpu_seconds().items()}
        self.parts_ms.append({part: seconds / sample.with_warming * 1e3 for part, seconds in used.items()})
        self.cpu_ms.append(sum(self.parts_ms[-1].values()))
        self.rates.append(sample.rate)
        self.wrong += sample.wrong + sample.failed
        alone = self.loader.run(Plan(1, seconds / 2))
        self.alone_ms.append(statistics.median(alone.latencies_ms or [0.0]))

    def parts(self) -> str:
        """The medians of the parts that take something, the largest first."""
        names = {part for each in self.parts_ms for part in each}  # a rewrite of the append-only file comes and goes
        medians = {part: statistics.median(each.get(part, 0.0) for each in self.parts_ms) for part in names}
        shown = sorted(medians.items(), key=lambda each: -each[1])
        return ", ".join(f"{part} {value:.2f}" for part, value in shown if value >= 0.01)

    def _cpu_seconds(self) -> dict[str, float]:
        """CPU seconds of the processes by what they run."""
        used = defaultdict[str, float](float)
        for process in [self.root, *self.root.children(recursive=True)]:
            with suppress(psutil.Error):  # a rewrite of the append-only file has just ended
                used[part_of(process.cmdline())] += arms.cpu_seconds(process)
        return used


def part_of(command: list[str]) -> str:
    """The module that Python runs, or the program."""
    if "-m" in command:
        return command[command.index("-m") + 1]
    return Path(command[0].split()[0]).name if command else "?"


def main() -> int:
    arguments = parse()
    images = pictures.photographs(arguments.images)
    try:
        found = measure(
            images, arguments.peers, arguments.against, arguments.rounds, arguments.seconds, arguments.clients
        )
    except arms.NotStarted as error:
        print(f"costs: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(AROUND, rows(found))))
    return 0


def measure(
    images: list[Path],
    peers: Sequence[str] = (),
    against: Sequence[Path] = (),
    rounds: int = 6,
    seconds: float = 6,
    clients: int = 16,
) -> dict[str, Arm]:
    """Start all arms, measure them in turn, stop them; the photographs are those of 640 pixels. Raises NotStarted."""
    images = pictures.of_size(images, constant_model.IMGSZ)
    names = [OURS, *peers, *(each.resolve().name for each in against)]
    if len(set(names)) < len(names):
        raise arms.NotStarted(f"the folders of --against need names of their own, none of them {OURS} or a peer's")
    for each in against:
        if not (each / ".venv" / "bin" / "python").exists():
            raise arms.NotStarted(f"--against {each}: no checkout with its .venv; `make setup` there makes one ready")
    if not images:
        raise arms.NotStarted("there are no photographs (*.jpg) of 640 pixels; give --images")
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="costs-", ignore_cleanup_errors=True)))
        found = start(peers, against, [str(image) for image in images], folder, exits)
        for number in range(rounds):
            say(f"a model that costs nothing, round {number + 1} of {rounds}")
            for name, arm in found.items():
                arm.measure(clients, seconds)
                say(f"{name}: {arm.cpu_ms[-1]:.2f} ms, {arm.rates[-1]:.0f} images/s, alone {arm.alone_ms[-1]:.2f} ms")
    return found


def start(
    peers: Sequence[str], against: Sequence[Path], images: list[str], folder: Path, exits: ExitStack
) -> dict[str, Arm]:
    """Start all arms. Raises NotStarted."""
    onnx = constant_model.write(folder / "models")
    python = arms.ROOT / ".venv-peers" / "bin" / "python"
    others = arms.Peers(arms.peers_folder(), python, onnx, onnx)
    wanted: dict[str, AbstractContextManager[Target]] = {OURS: checkout(arms.ROOT, folder / OURS, folder / "models")}
    for each in against:
        name = each.resolve().name
        wanted[name] = checkout(each.resolve(), folder / name, folder / "models")
    for name in peers:
        (folder / name).mkdir()
        wanted[name] = getattr(others, name)(folder / name)
    found = {}
    for name, context in wanted.items():
        say(f"starting {name}")
        known = set(psutil.Process().children())
        target = exits.enter_context(context)
        (root,) = set(psutil.Process().children()) - known
        target.images = images
        found[name] = Arm(root, exits.enter_context(arms.loading(target, folder, name)))
    return found


@contextmanager
def checkout(root: Path, folder: Path, repository: Path) -> Iterator[Target]:
    """The stack of a checkout, by its own `python -m local`."""
    (port,) = free_ports(1)
    environment = {
        "PORT": str(port),
        "RUN_DIR": str(folder),
        "MODEL_REPOSITORY": str(repository),
        "MODEL": constant_model.NAME,
        "WORKER_TASKS": str(WORKER_TASKS),
        **NO_METRICS,
    }
    log = folder.with_suffix(".log")
    command = [str(root / ".venv" / "bin" / "python"), "-m", "local"]
    with processes.running(command, environment, log, root) as process:
        arms.wait_for_port(process, port, "/readyz", log)
        yield Target("raw", [], f"127.0.0.1:{port}", "/predict?wait=60")


def rows(found: dict[str, Arm]) -> list[str]:
    """Medians of each arm, and of the quotients of one round: this checkout's by the arm's."""
    ours, lines = found[OURS], []
    for name, arm in found.items():
        own = (statistics.median(values) for values in (arm.cpu_ms, arm.rates, arm.alone_ms))
        pairs = (ours.cpu_ms, arm.cpu_ms), (ours.rates, arm.rates), (ours.alone_ms, arm.alone_ms)
        shares = (statistics.median(a / b for a, b in zip(mine, theirs, strict=True)) for mine, theirs in pairs)
        figures = [f"{value:.2f}" for value in (*own, *shares)]
        lines.append(f"{name} | {' | '.join(figures)} | {arm.wrong} | {arm.parts()}")
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("--against", type=Path, action="append", default=[], help="another checkout, with its .venv")
    parser.add_argument("--peers", nargs="*", default=[], choices=["mosec", "litserve"])
    parser.add_argument("--rounds", type=ROUNDS, default=6)
    parser.add_argument("--seconds", type=SECONDS, default=6)
    parser.add_argument("--clients", type=CLIENTS, default=16)
    parser.add_argument("--images", type=Path, default=pictures.folder(), help="folder of photographs (*.jpg)")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
