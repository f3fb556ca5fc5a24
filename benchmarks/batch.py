"""How busy `yolo-gateway batch` keeps the service, against the load of `make bench`: `python -m benchmarks.batch URL`.

In turn, against one running service: the load's closed loop with 8 clients, then a batch of as many different files as
the load would need the same time for. Both send the same photographs; the batch's copies differ in one comment each,
since what is sent twice is computed once.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.arguments import ROUNDS, SECONDS, exit_with
from benchmarks.arms import ROOT, loading
from benchmarks.load import Plan
from benchmarks.pictures import photographs
from benchmarks.senders import Target

CLIENTS = 8
WARM_SECONDS = 3.0


def main() -> int:
    arguments = _parse()
    images = photographs(arguments.images)
    with tempfile.TemporaryDirectory(prefix="bench-batch-") as name:
        folder = Path(name)
        target = Target("raw", [str(image) for image in images], urlsplit(arguments.url).netloc, "/predict?wait=60")
        with loading(target, folder, "load") as load:
            load.run(Plan(CLIENTS, WARM_SECONDS))
            pairs = []
            for number in range(arguments.rounds):
                rate = load.run(Plan(CLIENTS, arguments.seconds)).rate
                pairs.append(
                    (rate, batch_rate(arguments.url, images, int(rate * arguments.seconds), folder / str(number)))
                )
                print("load {:.1f}/s, batch {:.1f}/s, ratio {:.3f}".format(*pairs[-1], pairs[-1][1] / rate), flush=True)
    ratio = sum(batch for _, batch in pairs) / sum(rate for rate, _ in pairs)
    print(json.dumps({"ratio": round(ratio, 3), "load_average": os.getloadavg()[0]}))
    return 0


def batch_rate(url: str, images: list[Path], number: int, folder: Path) -> float:
    """Images a second from the start of the command to its end."""
    _write(images, number, folder / "photos")
    command = [sys.executable, "-m", "yolo_gateway", "batch", str(folder / "photos"), "--out", str(folder / "out.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client")}
    began = time.perf_counter()
    subprocess.run([*command, "--server", url, "--quiet"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return number / (time.perf_counter() - began)


def _write(images: list[Path], number: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    for index, image in zip(range(number), itertools.cycle(images), strict=False):
        data, comment = image.read_bytes(), f"{time.time_ns()} {index}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{index:06}.jpg").write_bytes(data[:2] + segment + data[2:])


def _parse() -> argparse.Namespace:
    images = Path(os.environ.get("YOLO_SHARED") or ROOT.parent / "shared") / "images"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("url", help="of a running service that nobody else uses")
    parser.add_argument("--images", type=Path, default=images, help="folder of photographs (*.jpg)")
    parser.add_argument("--rounds", type=ROUNDS, default=4)
    parser.add_argument("--seconds", type=SECONDS, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
