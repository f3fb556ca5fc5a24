"""`python -m evaluation --data data.yaml`: mAP of a served model over a YOLO-format data set, alongside PyTorch's.

The served half asks Triton, with the gateway's own decoding, letterbox and NMS around it; the PyTorch half runs the
checkpoint, as YOLOv5's own `val.py` does and step by step nearer to the service.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from evaluation import names, record, report
from evaluation.dataset import Dataset, load
from evaluation.described import SPLITS
from evaluation.errors import DatasetError
from evaluation.listing import find as find_images
from evaluation.steps import CUT, SERVED, Model, Network, evaluate
from export.address import AddressError, Place, find
from export.errors import ExportError, one_line
from export.options import flag
from export.sources import class_names
from gateway.errors import GatewayError
from gateway.settings import Settings, SettingsError
from gateway.settings import load as load_settings
from gateway.triton.client import ModelChanged, TritonBusy, TritonClient, TritonFailing, TritonUnavailable
from gateway.triton.spec import ModelSpec

TOLERANCE = 0.005


def served(client: TritonClient, spec: ModelSpec) -> Model:
    """The model behind Triton."""
    return lambda letterboxed: client.infer(spec, letterboxed).rows


def pytorch(given: str, spec: ModelSpec, names: str = "") -> Network:
    """The checkpoint itself in float32, without the deployed graph. Raises ExportError when there is none that fits.

    `names` count instead of the checkpoint's own.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's waiting threads would spin alongside Triton's
    # torch: seconds to import, and absent where only the served half is wanted
    from export.sources import checkpoint, kinds, reference

    known = class_names.read(names) if names else None
    try:
        path = checkpoint.find(spec.name, given or None, _say)
        if kinds.is_onnx(path):
            raise ExportError(f"{path} is an ONNX file, and PyTorch runs the .pt that it was made of: give that")
    except ExportError as error:
        raise ExportError(f"{error}; or SERVED_ONLY=1 to score the served model alone") from error
    loaded = checkpoint.load(path, known)
    if loaded.labels != spec.labels:
        raise ExportError(
            f"{loaded.path} and the served {spec.name} have different classes; "
            "give the checkpoint that it was exported from with WEIGHTS=, and NAMES= if the export had it"
        )
    return lambda letterboxed: reference.boxes_and_scores(loaded.network, letterboxed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 1 when something is wrong or the two halves differ beyond the tolerance."""
    try:
        return _run(_parser().parse_args(arguments))
    except (AddressError, DatasetError, ExportError, OSError, SettingsError) as error:
        print(f"evaluate: {one_line(str(error))}", file=sys.stderr)
    except TritonFailing as error:
        print(f"evaluate: {error}; MODEL= names the served model, `make doctor` shows which there are", file=sys.stderr)
    except (TritonBusy, ModelChanged) as error:
        print(f"evaluate: {error}; try again", file=sys.stderr)
    except TritonUnavailable as error:
        print(f"evaluate: {error}; start it with `make run`, or say where it is with TRITON_URL", file=sys.stderr)
    except GatewayError as error:
        print(f"evaluate: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 130
    return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ExportError(f"{message}; `python -m evaluation --help` lists the options")


def _parser() -> argparse.ArgumentParser:
    """An empty value means "not given", so that make can pass every option."""
    parser = _Parser("python -m evaluation", description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--data", metavar="PATH", default="", help="data.yaml, folder of images with YOLO labels, or .txt of images")
    add("--split", choices=["", *SPLITS], default="", help="which part of the data set (default val)")
    add("--model", default="", help="name of the served model (default: the setting MODEL)")
    add("--weights", default="", help="its checkpoint (default: the one that export finds for that name)")
    add("--triton", default="", metavar="HOST:PORT", help="its gRPC endpoint (default: TRITON_URL, else make run's)")
    add("--tolerance", type=_fraction, default=TOLERANCE, help=f"largest difference from PyTorch (default {TOLERANCE})")
    add("--names", default="", help="names of the checkpoint's classes, as an export takes them")
    add("--served-only", type=flag, nargs="?", const=True, help="leave PyTorch out")
    add("--ignore-names", action="store_true", help="compare classes by number, whatever data.yaml calls them")
    return parser


def _fraction(value: str) -> float:
    try:
        number = float(value or TOLERANCE)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{value} is no number from 0 to 1")
    return number


def _run(options: argparse.Namespace) -> int:
    if not options.data:
        raise ExportError("no data set; give its data.yaml or folder: make evaluate DATA=folder")
    if options.served_only and options.names:
        raise ExportError("SERVED_ONLY=1 leaves the checkpoint out, and takes no NAMES=; leave one of them away")
    settings = load_settings()
    place = find(options.triton, "", os.environ)
    client = TritonClient(place.url, settings.triton_timeout)
    try:
        return _evaluated(options, settings, place, client)
    finally:
        client.close()


def _evaluated(options: argparse.Namespace, settings: Settings, place: Place, client: TritonClient) -> int:
    spec = client.spec(options.model or settings.model)
    listing = find_images(Path(options.data), options.split)
    said = [] if options.ignore_names else names.check(listing.names, spec.labels)
    dataset = load(listing, len(spec.labels))
    if not options.ignore_names:
        used = (int(class_id) for image in dataset.images for class_id in image.class_ids)
        names.check_labelled(listing.names, used, spec.labels)
    network = None if options.served_only else pytorch(options.weights, spec, options.names)
    _introduce(dataset, spec, said)
    limits = {"max_pixels": settings.max_image_pixels, "max_side": settings.max_image_side}
    result = evaluate(dataset, spec, served(client, spec), network, **limits)
    for note in report.notes(result):
        _say(note)
    print(report.table(result.images, spec.labels, report.columns(result.scores)))
    record.keep(place.repository, spec, dataset, len(result.images), result.scores[SERVED])
    if network is None:
        return 0
    print(report.costs(result))
    return report.verdict(result.scores[SERVED], result.scores[CUT], options.tolerance)


def _introduce(dataset: Dataset, spec: ModelSpec, said: Sequence[str]) -> None:
    height, width = spec.size_hw
    shape = f"{height}x{width}, {'fixed' if spec.fixed else 'least padding'}"
    listing = dataset.listing
    where = f"{listing.split} of {listing.root} ({', '.join(listing.places)})" if listing.split else f"{listing.root}"
    _say(f"{spec.name} version {spec.version} ({shape}) over {len(dataset.images)} images of {where}")
    for line in (*said, *dataset.notes):
        _say(line)


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr)
