"""`make bench`: figures of the whole stack, of its parts alone, and of what a user would pick instead."""

import argparse
import os
import shlex
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import arms, costs, pictures, plot, results, say
from benchmarks.arguments import exit_with
from benchmarks.suite import FULL, QUICK, Suite
from gateway.triton.client import TritonClient
from local import triton

# Ten thousand are queued at the end, all from one address.
SETTINGS = {
    "MAX_QUEUED_TASKS": "20000",
    "MAX_QUEUED_TASKS_PER_CLIENT": "20000",
    "MAX_QUEUED_BYTES_PER_CLIENT": "500000000",
}
COSTS_PEERS = ("mosec", "litserve")
OUTPUT = arms.ROOT / "benchmarks" / "results"


def main() -> int:
    arguments = parse()
    try:
        report = measure(arguments)
    except arms.NotStarted as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report.goals = results.judge(report)
    results.write(report, arguments.output)
    plot.draw(report, arguments.output)
    print(results.markdown(report))
    print(f"written to {arguments.output}")
    return 0


def measure(arguments: argparse.Namespace) -> results.Report:
    """Start everything, measure, stop everything. Raises NotStarted."""
    began = time.monotonic()
    images = pictures.photographs(arguments.images)
    if not images:
        raise arms.NotStarted(f"no photographs (*.jpg) in {arguments.images}; name a folder with --images")
    repository = Path(os.environ.get("MODEL_REPOSITORY") or arms.ROOT / "model_repository")
    onnx = model_file(repository, arguments.model)
    python = arms.ROOT / ".venv-peers" / "bin" / "python"
    peers = arms.Peers(arms.peers_folder(), python, onnx, checkpoint(arguments.model))
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        say("starting the stack")
        service = exits.enter_context(arms.stack(arguments.model, repository, folder, SETTINGS))
        client = TritonClient(service.triton_address, timeout=30)
        spec = client.spec(arguments.model)
        client.close()
        pace = QUICK if arguments.quick else FULL
        report = Suite(pace, service, spec, images, onnx, peers, folder, exits, say).run()
    try:
        others = [name for name in COSTS_PEERS if not report.arms[name].skipped]
        report.around_the_model = costs.rows(costs.measure(images, others, rounds=pace.rounds, seconds=pace.turn))
    except arms.NotStarted as error:
        say(f"the model that costs nothing is skipped: {error}")
    report.seconds = time.monotonic() - began
    return report


def model_file(repository: Path, model: str) -> Path:
    """The newest version's model, the one that Triton serves."""
    if model not in triton.models(repository):
        raise arms.NotStarted(f"no model {model} in {repository}; run `make export-model MODEL={shlex.quote(model)}`")
    files = (repository / model).glob("[0-9]*/model.onnx")
    return max(files, key=lambda file: int(file.parent.name)).resolve()


def checkpoint(model: str) -> Path:
    """The checkpoint of that name, for the peer that runs PyTorch."""
    places = (arms.ROOT / "weights", arms.peers_folder().parent / "weights")
    found = [place / f"{model}.pt" for place in places]
    return next((path for path in found if path.is_file()), found[0])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", default=os.environ.get("QUICK") == "1", help="about one minute")
    parser.add_argument("--model", default=os.environ.get("MODEL") or "yolov5n")
    parser.add_argument("--images", type=Path, default=pictures.folder(), help="folder of photographs (*.jpg)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
