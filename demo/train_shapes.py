"""Trains shapes.pt: a small YOLOv5 that finds drawn circles, squares and triangles.

The drawings are made on the fly from a seed, so nothing is downloaded: `python demo/train_shapes.py` writes
shapes.pt next to this file in ultralytics' checkpoint format, and `--samples` redraws the sample images and labels in
demo/shapes. Training needs ultralytics, also where there is no torchvision for it.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

NAMES = ("circle", "square", "triangle")
SEED = 20240
# [depth, width, max channels] as in yolov5.yaml; half the width of yolov5n.
SCALE = [0.33, 0.125, 1024]
BATCH = 16
SIZES = (160, 192, 224, 256, 320)
PADDING = 114
SAMPLES_SEED = 7
SAMPLES_HW = ((240, 320), (320, 240), (256, 256), (200, 320))
EVERYTHING = importlib.metadata.DistributionFinder.Context()
HERE = Path(__file__).resolve().parent


def draw(rng: np.random.Generator, height: int, width: int) -> tuple[Image, Floats]:
    """One drawing: RGB uint8 (height, width, 3), and float32 (N, 5) rows of class, cx, cy, w, h relative to it.

    N is 0 to 8. A box spans the whole shape inside the drawing, also where another covers it (never more than 40 %).
    """
    image = _background(rng, height, width)
    owner = np.full((height, width), -1, np.int16)
    whole: list[int] = []
    rows: list[list[float]] = []
    for _ in range(int(rng.integers(0, 9))):
        class_id = int(rng.integers(len(NAMES)))
        mask = _mask(rng, class_id, height, width)
        area = int(np.count_nonzero(mask))
        if area == 0 or not _leaves_others_visible(owner, mask, whole):
            continue
        _paint(rng, image, mask)
        owner[mask > 0] = len(rows)
        whole.append(area)
        x, y, w, h = cv2.boundingRect(mask)
        rows.append([class_id, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height])
    return _spoil(rng, image), np.array(rows, np.float32).reshape(-1, 5)


def _background(rng: np.random.Generator, height: int, width: int) -> Image:
    kind = rng.integers(4)
    if kind == 0:
        image = np.empty((height, width, 3), np.uint8)
        image[:] = rng.integers(0, 256, 3)
    elif kind == 1:
        cells = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        image = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    elif kind == 2:
        count = int(rng.integers(3, 16))
        low = int(rng.integers(0, 160))
        cells = rng.integers(low, low + 96, (count, count, 3)).astype(np.uint8)
        image = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    else:
        base = rng.integers(0, 200, 3)
        step = int(rng.integers(6, 40))
        stripes = (np.arange(width)[None, :] * int(rng.integers(0, 2)) + np.arange(height)[:, None]) // step % 2
        image = (base + stripes[..., None] * rng.integers(10, 56, 3)).astype(np.uint8)
    for _ in range(int(rng.integers(0, 5))):
        ends = rng.integers(0, (width, height), (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], rng.integers(0, 256, 3).tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    return image


def _mask(rng: np.random.Generator, class_id: int, height: int, width: int) -> Image:
    """The shape's area: uint8 (height, width), 255 inside."""
    mask = np.zeros((height, width), np.uint8)
    side = min(height, width)
    radius = side * float(np.exp(rng.uniform(np.log(0.05), np.log(0.36))))
    centre = np.array(
        [rng.uniform(0.8 * radius, width - 0.8 * radius), rng.uniform(0.8 * radius, height - 0.8 * radius)]
    )
    if class_id == 0:
        cv2.circle(mask, np.rint(centre).astype(int).tolist(), max(2, round(radius)), 255, -1)
        return mask
    corners = 4 if class_id == 1 else 3
    angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    if class_id == 2:
        angles = angles + rng.uniform(-0.3, 0.3, 3)
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    return mask


def _leaves_others_visible(owner: NDArray[np.int16], mask: Image, whole: list[int]) -> bool:
    visible = np.bincount(owner[mask == 0] + 1, minlength=len(whole) + 1)[1:]
    return bool(np.all(visible >= 0.6 * np.array(whole)))


def _paint(rng: np.random.Generator, image: Image, mask: Image) -> None:
    inside = mask > 0
    mean = image[inside].mean(0)
    colour = rng.integers(0, 256, 3)
    while np.abs(colour - mean).sum() < 130:
        colour = rng.integers(0, 256, 3)
    outline_only = rng.random() < 0.15
    if not outline_only:
        alpha = rng.uniform(0.75, 1.0)
        image[inside] = np.rint(image[inside] * (1 - alpha) + colour * alpha).astype(np.uint8)
    if outline_only or rng.random() < 0.3:
        edge = colour if outline_only else rng.integers(0, 256, 3)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = np.zeros_like(mask)
        cv2.drawContours(outline, contours, -1, 255, int(rng.integers(3, 8)))
        image[(outline > 0) & inside] = edge


def _spoil(rng: np.random.Generator, image: Image) -> Image:
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (3, 3), 0).astype(np.uint8)
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0, 16))
    return np.clip((image + noise) * np.float32(rng.uniform(0.7, 1.15)), 0, 255).astype(np.uint8)


def padded_drawing(rng: np.random.Generator, size: int) -> tuple[Image, Floats]:
    """A drawing inside a square of `size`, padded with grey as a letterbox would; rows are relative to the square."""
    height, width = size, size
    if rng.random() < 0.5:
        height = int(rng.integers(size * 5 // 8, size + 1))
    elif rng.random() < 0.5:
        width = int(rng.integers(size * 5 // 8, size + 1))
    drawing, rows = draw(rng, height, width)
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, 3), PADDING, np.uint8)
    square[top : top + height, left : left + width] = drawing
    rows[:, 1:] *= np.array([width, height, width, height], np.float32)
    rows[:, 1:3] += np.array([left, top], np.float32)
    rows[:, 1:] /= size
    return square, rows


def write_samples(folder: Path) -> None:
    """The sample images and their labels (class cx cy w h, relative), always the same bytes."""
    rng = np.random.default_rng(SAMPLES_SEED)
    for layer in ("images", "labels"):
        (folder / layer).mkdir(parents=True, exist_ok=True)
    for index, (height, width) in enumerate(SAMPLES_HW):
        image, rows = draw(rng, height, width)
        while len(rows) < 3:
            image, rows = draw(rng, height, width)
        cv2.imwrite(str(folder / "images" / f"{index}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        lines = [" ".join([str(int(row[0])), *(f"{value:.6f}" for value in row[1:])]) for row in rows]
        (folder / "labels" / f"{index}.txt").write_text("\n".join(lines) + "\n")
    names = "\n".join(f"  {index}: {name}" for index, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"path: .\nval: images\nnames:\n{names}\n")


class NoTorchvision(importlib.metadata.DistributionFinder):
    """ultralytics asks for torchvision's version when imported, and for nothing else of it here."""

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context = EVERYTHING
    ) -> Iterator[importlib.metadata.Distribution]:
        if context.name == "torchvision":
            yield Torchvision()


class Torchvision(importlib.metadata.Distribution):
    def read_text(self, filename: str) -> str | None:
        return "Name: torchvision\nVersion: 0.0\n" if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


def let_ultralytics_do_without_torchvision() -> None:
    sys.meta_path.append(NoTorchvision())  # last: a real one is found first


def build_model() -> Any:
    """An untrained DetectionModel of ultralytics' YOLOv5 architecture."""
    let_ultralytics_do_without_torchvision()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    config = yaml_model_load("yolov5n.yaml")
    config["scales"] = {"n": SCALE}
    config["nc"] = len(NAMES)
    model = DetectionModel(config, ch=3, nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    model.args = get_cfg()
    return model


def batches(rng: np.random.Generator, steps: int) -> Iterator[dict[str, Any]]:
    """Batches in the layout that ultralytics' loss takes."""
    import torch

    for _ in range(steps):
        drawings = [padded_drawing(rng, size) for size in [int(rng.choice(SIZES))] * BATCH]
        images = torch.from_numpy(np.stack([image for image, _ in drawings])).permute(0, 3, 1, 2).float() / 255
        rows = torch.from_numpy(np.concatenate([rows for _, rows in drawings]))
        counts = torch.tensor([len(rows) for _, rows in drawings])
        yield {
            "img": images,
            "batch_idx": torch.repeat_interleave(torch.arange(BATCH), counts).float(),
            "cls": rows[:, :1],
            "bboxes": rows[:, 1:],
        }


def train(out: Path, steps: int, peak_rate: float = 4e-3) -> None:
    """Trains for `steps` batches and writes the averaged weights to `out`, every 500 steps and at the end."""
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    torch.manual_seed(SEED)
    model = build_model().train()
    average = copy.deepcopy(model).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed, plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 1e-3}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.1)
    bar = tqdm(batches(np.random.default_rng(SEED), steps), total=steps, mininterval=10)
    for step, batch in enumerate(bar):
        loss, _ = model.loss(batch)
        optimizer.zero_grad()
        (loss.sum() / BATCH).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        _blend(average, model, min(0.998, (1 + step) / (10 + step)))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.sum()) / BATCH:.3f}")
        if (step + 1) % 500 == 0 or step + 1 == steps:
            save(average, out)


def _blend(average: Any, model: Any, keep: float) -> None:
    import torch

    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


def save(model: Any, out: Path) -> None:
    """ultralytics' checkpoint format, float16, with nothing in it but tensors, plain values and module classes."""
    import torch

    stored = copy.deepcopy(model).half().eval()
    stored.args = {"task": "detect", "imgsz": max(SIZES)}
    stored.criterion = None
    for parameter in stored.parameters():
        parameter.requires_grad_(False)
    partial = out.with_suffix(".part")
    torch.save({"epoch": -1, "model": stored, "ema": None, "train_args": stored.args, "license": "MIT"}, partial)
    partial.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=HERE / "shapes.pt")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--samples", action="store_true", help="only redraw demo/shapes")
    options = parser.parse_args()
    if options.samples:
        write_samples(HERE / "shapes")
    else:
        train(options.out, options.steps)


if __name__ == "__main__":
    main()
