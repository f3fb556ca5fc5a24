"""Memory over many images: `python -m benchmarks.soak --count 20000`. Exit status 1 when it is not flat.

Starts the stack, sends the photographs round and round, and prints the resident memory of gateway and worker each time
a twentieth has been answered. Flat: from a quarter of the way on it grows by at most 5 %.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import arms, pictures
from benchmarks.arguments import exit_with, whole
from benchmarks.load import Plan
from benchmarks.senders import Target

CLIENTS, SECONDS = 8, 5.0
GROWTH = 1.05
ROLES = ("gateway", "worker")


def main() -> int:
    arguments = parse()
    repository = Path(os.environ.get("MODEL_REPOSITORY") or arms.ROOT / "model_repository")
    images = [str(image) for image in pictures.photographs(arguments.images)]
    try:
        with ExitStack() as exits:
            folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True)))
            service = exits.enter_context(arms.stack(arguments.model, repository, folder, {}))
            target = Target("raw", images, service.address, "/predict?wait=60")
            loader = exits.enter_context(arms.loading(target, folder, "soak"))
            return run(loader, service, arguments.count)
    except arms.NotStarted as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1


def run(loader: arms.Loader, service: arms.Service, count: int) -> int:
    answered, reported = 0, 0
    early: dict[str, float] = {}
    memory = service.memory()
    while answered < count:
        sample = loader.run(Plan(CLIENTS, SECONDS))
        if not sample.right:
            raise arms.NotStarted(f"no right answers: {sample.first_failure}")
        answered += len(sample.latencies_ms)
        memory = service.memory()
        if answered >= count / 4:
            early = early or memory
        if answered * 20 >= reported * count:
            reported = answered * 20 // count + 1
            print(answered, ", ".join(f"{role} {memory[role]:.1f} MB" for role in ROLES), flush=True)
    grown = [role for role in ROLES if memory[role] > early[role] * GROWTH]
    print(f"not flat: {', '.join(grown)}" if grown else "flat")
    return int(bool(grown))


def parse() -> argparse.Namespace:
    images = Path(os.environ.get("YOLO_SHARED") or arms.ROOT.parent / "shared") / "images"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--count", type=whole(1, 100_000_000), default=20_000)
    parser.add_argument("--model", default=os.environ.get("MODEL") or "yolov5n")
    parser.add_argument("--images", type=Path, default=images)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
