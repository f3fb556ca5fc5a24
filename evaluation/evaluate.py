"""`python -m evaluation --data DIR`: mAP of a served model over a YOLO-format data set, alongside PyTorch's.

The served half asks Triton, with the gateway's own decoding, letterbox and NMS around it; the PyTorch half puts the
checkpoint in Triton's place. Both count what YOLOv5's own validation counts: confidence 0.001, NMS at IoU 0.6, at most
300 boxes an image, one class a box.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]

from evaluation.dataset import Dataset, DatasetError, LabelledImage, read
from evaluation.scoring import Scores, Truth, score
from export.address import AddressError, find
from export.errors import ExportError
from gateway.errors import GatewayError, InvalidImage
from gateway.settings import SettingsError, load
from gateway.triton.client import TritonClient, TritonUnavailable
from gateway.triton.spec import ModelSpec
from gateway.vision.decode import decode
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms

CONFIDENCE, IOU, MAX_DETECTIONS = 0.001, 0.6, 300
TOLERANCE = 0.005

# RGB uint8 (height, width, 3), letterboxed → float32 (K, 6) candidate rows.
Model = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def evaluate(dataset: Dataset, spec: ModelSpec, models: dict[str, Model]) -> dict[str, Scores]:
    """Run every model over every image, letterboxed as `spec` says, and count. Shows a progress bar on stderr.

    Raises DatasetError for an image that cannot be read.
    """
    truths: list[Truth] = []
    found: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in models}
    for labelled in tqdm(dataset.images, desc="images", unit="image", file=sys.stderr):
        image = _pixels(labelled)
        height, width = image.shape[:2]
        truths.append(Truth(labelled.class_ids, labelled.boxes_xyxy_source(width, height)))
        for name, model in models.items():
            found[name].append(detect(image, spec, model))
    return {name: score(truths, answers, len(spec.labels)) for name, answers in found.items()}


def detect(image: npt.NDArray[np.uint8], spec: ModelSpec, model: Model) -> npt.NDArray[np.float32]:
    """One model's answer to one image, RGB uint8: float32 (N, 6), x1, y1, x2, y2 in source pixels, score, class_id."""
    letterboxed, placement = letterbox(image, size_hw=spec.size_hw, stride=spec.stride, fixed=spec.fixed)
    rows = nms(model(letterboxed), confidence=CONFIDENCE, iou=IOU, max_detections=MAX_DETECTIONS)
    return np.concatenate([placement.to_source(rows[:, :4]), rows[:, 4:]], 1)


def table(dataset: Dataset, labels: Sequence[str], scores: dict[str, Scores]) -> str:
    """The scores as text: a line for all classes, then one for each class of the ground truth."""
    first, *_ = scores.values()
    shown = list(first.per_class)
    width = max(12, *(len(labels[class_id]) for class_id in shown))
    counts = {
        class_id: [int(np.count_nonzero(image.class_ids == class_id)) for image in dataset.images] for class_id in shown
    }
    head = "".join(f"{f'mAP50 {name}':>16}{f'mAP50-95 {name}':>19}" for name in scores)
    lines = [f"{'class':<{width}}{'images':>8}{'objects':>9}{head}"]

    def add(label: str, images: int, objects: int, values: list[tuple[float, float]]) -> None:
        cells = "".join(f"{map50:>16.4f}{map50_95:>19.4f}" for map50, map50_95 in values)
        lines.append(f"{label:<{width}}{images:>8}{objects:>9}{cells}")

    objects = sum(sum(per_image) for per_image in counts.values())
    add("all", len(dataset.images), objects, [(each.map50, each.map50_95) for each in scores.values()])
    for class_id, per_image in counts.items():
        values = [each.per_class[class_id] for each in scores.values()]
        add(labels[class_id], sum(count > 0 for count in per_image), sum(per_image), values)
    return "\n".join(lines)


def _pixels(labelled: LabelledImage) -> npt.NDArray[np.uint8]:
    try:
        return decode(labelled.path.read_bytes())
    except (InvalidImage, OSError) as error:
        raise DatasetError(f"{labelled.path}: {error}; replace or remove it") from error


def served(client: TritonClient, spec: ModelSpec) -> Model:
    """The model behind Triton."""
    return lambda letterboxed: client.infer(spec, letterboxed)[0]


def pytorch(given: str, spec: ModelSpec) -> Model:
    """The checkpoint itself in float32, without the deployed graph. Raises ExportError when there is none that fits."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's waiting threads would spin alongside Triton's
    # torch: seconds to import, and absent where only the served half is wanted
    from export.sources import checkpoint, reference

    loaded = checkpoint.load(checkpoint.find(spec.name, given or None, _say))
    if loaded.labels != spec.labels:
        raise ExportError(
            f"{loaded.path} and the served {spec.name} have different classes; "
            "give the checkpoint that it was exported from with WEIGHTS="
        )
    return lambda letterboxed: reference.candidates(loaded.network, letterboxed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 1 when something is wrong or the two halves differ beyond the tolerance."""
    try:
        return _run(_parser().parse_args(arguments))
    except (AddressError, DatasetError, ExportError, SettingsError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
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
    add("--data", metavar="DIR", default="", help="folder of images with YOLO labels")
    add("--model", default="", help="name of the served model (default: the setting MODEL)")
    add("--weights", default="", help="its checkpoint (default: the one that export finds for that name)")
    add("--triton", default="", metavar="HOST:PORT", help="its gRPC endpoint (default: TRITON_URL, else make run's)")
    add("--tolerance", type=_fraction, default=TOLERANCE, help=f"largest difference from PyTorch (default {TOLERANCE})")
    add("--served-only", action="store_true", help="leave PyTorch out")
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
        raise ExportError("no data set; give its folder: make evaluate DATA=folder")
    settings = load()
    client = TritonClient(find(options.triton, "", os.environ).url, settings.triton_timeout)
    try:
        spec = client.spec(options.model or settings.model)
        dataset = read(Path(options.data), len(spec.labels))
        models = {"served": served(client, spec)}
        if not options.served_only:
            models["PyTorch"] = pytorch(options.weights, spec)
        _introduce(dataset, spec)
        scores = evaluate(dataset, spec, models)
    finally:
        client.close()
    print(table(dataset, spec.labels, scores))
    return 0 if options.served_only else verdict(scores["served"], scores["PyTorch"], options.tolerance)


def verdict(answered: Scores, expected: Scores, tolerance: float) -> int:
    """Say in one line whether the two agree; 1 when they do not."""
    apart = max(abs(answered.map50 - expected.map50), abs(answered.map50_95 - expected.map50_95))
    if apart > tolerance:
        print(
            f"evaluate: served and PyTorch differ by {apart:.4f}, more than {tolerance}; export the model again",
            file=sys.stderr,
        )
        return 1
    print(f"served and PyTorch agree: they differ by {apart:.4f}, at most {tolerance} is allowed")
    return 0


def _introduce(dataset: Dataset, spec: ModelSpec) -> None:
    height, width = spec.size_hw
    shape = f"{height}x{width}, {'fixed' if spec.fixed else 'least padding'}"
    _say(f"{spec.name} version {spec.version} ({shape}) over {len(dataset.images)} images of {dataset.root}")
    if dataset.unlabelled:
        _say(f"left out: {dataset.unlabelled} images without a label file (an empty one says that nothing is there)")
    for class_id, name in dataset.names.items():
        label = spec.labels[class_id] if class_id in range(len(spec.labels)) else "no class"
        if name != label:
            _say(f"warning: class {class_id} is {name!r} in data.yaml and {label!r} in the model")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
