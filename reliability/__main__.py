"""`python -m reliability chaos|fuzz|overload [--quick]`: prints a table, exit status 1 when a promise breaks."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from local import triton, wheel
from local.errors import LocalError
from reliability import attacks, chaos, fuzz, overload, surroundings
from reliability.hosts import acts
from reliability.load import photographs
from reliability.promises import Promise, table
from reliability.service import Service, running

SHARED = Path(os.environ.get("YOLO_SHARED") or wheel.ROOT.parent / "shared")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("what", choices=["chaos", "fuzz", "overload"])
    parser.add_argument("--part", choices=["processes", "hosts"], help="of chaos: this one alone")
    parser.add_argument("--quick", action="store_true", help="the short form that the tests run")
    parser.add_argument("--model", default=os.environ.get("MODEL") or "yolov5n")
    parser.add_argument("--repository", type=Path, default=wheel.ROOT / "model_repository")
    parser.add_argument("--keep", type=Path, help="folder for the logs; left there")
    options = parser.parse_args()
    if options.part and options.what != "chaos":
        parser.error(f"--part is for chaos; {options.what} has no parts")
    if options.model not in triton.models(options.repository):
        print(
            f"reliability: no model {options.model} in {options.repository}; run `make export-model`", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        return prove(options, options.keep or Path(scratch))


def prove(options: argparse.Namespace, folder: Path) -> int:
    begun, images = time.monotonic(), photographs(SHARED)
    try:
        plan = overload.QUICK if options.quick else overload.Plan()
        settings = plan.settings if options.what == "overload" else {}
        promises: list[Promise] = []
        if options.part != "hosts":
            with running(folder, options.repository, options.model, settings=settings) as service:
                promises += asyncio.run(scenario(options.what, service, images, options.quick))
        if options.what == "chaos" and options.part != "processes":
            plan_of_hosts = acts.QUICK if options.quick else acts.Plan()
            promises += acts.all_of_them(folder / "hosts", options.repository, options.model, images, plan_of_hosts)
        if options.what == "overload":
            with running(folder / "attacks", options.repository, options.model, settings=attacks.SETTINGS) as service:
                attack = attacks.QUICK if options.quick else attacks.Plan()
                promises += asyncio.run(attacks.all_of_them(service, images, attack))
            outage = surroundings.QUICK_OUTAGE if options.quick else surroundings.OUTAGE
            promises += surroundings.all_of_them(
                folder / "surroundings", options.repository, options.model, images, attack, outage
            )
    except LocalError as error:
        print(f"reliability: {error}", file=sys.stderr)
        return 1
    print(f"{options.what}: {time.monotonic() - begun:.0f} s\n\n{table(promises)}")
    return 0 if all(promise.kept for promise in promises) else 1


async def scenario(what: str, service: Service, images: Sequence[bytes], quick: bool) -> list[Promise]:
    if what == "chaos":
        return await chaos.all_of_it(service, images, chaos.QUICK if quick else chaos.Plan())
    if what == "overload":
        return await overload.ten_times(service, images, overload.QUICK if quick else overload.Plan())
    return await fuzz.no_file_harms(service, images, SHARED, fuzz.QUICK if quick else fuzz.Plan())


if __name__ == "__main__":
    sys.exit(main())
