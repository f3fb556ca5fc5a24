"""What a checkpoint answers in plain PyTorch: the yardstick for whatever is deployed.

It shares no code with the deployed graph: the head's maps are decoded here by the formulas of YOLOv5, box by box, and
no box is left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from export.comparison import best_rows
from export.sources.layers import AnchorHead, Network

Floats = npt.NDArray[np.float32]


def candidates(network: Network, image: npt.NDArray[np.uint8]) -> Floats:
    """As `table`, with the best class alone: float32 (N, 6), x1, y1, x2, y2 in input pixels, its score, its id."""
    return best_rows(table(network, image))


def table(network: Network, image: npt.NDArray[np.uint8]) -> Floats:
    """Every box of one letterboxed image, RGB uint8 (height, width, 3), before NMS and in the order of the head.

    float32 (N, 4 + classes): x1, y1, x2, y2 in input pixels, the score of each class.
    """
    return np.concatenate(boxes_and_scores(network, image), 1)


def boxes_and_scores(network: Network, image: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """As `table`, boxes and scores apart: float32 (N, 4), x1, y1, x2, y2 in input pixels, and (N, C)."""
    with torch.inference_mode():
        maps = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    head = network.head
    found = []
    for level, logits in enumerate(maps):
        values: Floats = logits[0].numpy()
        stride = float(head.stride[level])
        if isinstance(head, AnchorHead):
            found += _anchored(values, stride, head.anchors[level].numpy())
        else:
            found.append(_anchor_free(values, stride, head.reg_max))
    boxes, scores = zip(*found, strict=True)
    return np.concatenate(boxes), np.concatenate(scores)


def _anchored(logits: Floats, stride: float, anchors: Floats) -> list[tuple[Floats, Floats]]:
    """xy = (2s - 0.5 + cell)·stride, wh = (2s)²·anchor·stride, score = objectness·class, s the sigmoid."""
    height, width = logits.shape[1:]
    found = []
    for values, anchor in zip(_sigmoid(logits).reshape(len(anchors), -1, height, width), anchors, strict=True):
        centres = (2 * values[:2] - 0.5 + _cells(height, width)) * stride
        halves = (2 * values[2:4]) ** 2 * anchor[:, None, None] * stride / 2
        found.append(_table(centres - halves, centres + halves, values[4] * values[5:]))
    return found


def _anchor_free(logits: Floats, stride: float, bins: int) -> tuple[Floats, Floats]:
    """Each side is the expected value of its distribution away from the cell's centre."""
    height, width = logits.shape[1:]
    spread = logits[: 4 * bins].reshape(4, bins, height, width)
    weights = np.exp(spread - spread.max(1, keepdims=True))
    sides = np.einsum("sbhw,b->shw", weights / weights.sum(1, keepdims=True), np.arange(bins, dtype=np.float32))
    centres = _cells(height, width) + 0.5
    return _table((centres - sides[:2]) * stride, (centres + sides[2:]) * stride, _sigmoid(logits[4 * bins :]))


def _table(upper_left: Floats, lower_right: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """(2, H, W) corners and (classes, H, W) scores → (H·W, 4) and (H·W, classes)."""
    corners = np.concatenate([upper_left, lower_right])
    return _columns(corners), _columns(scores)


def _columns(planes: Floats) -> Floats:
    return np.ascontiguousarray(planes.reshape(len(planes), -1).T, np.float32)


def _cells(height: int, width: int) -> Floats:
    """(2, height, width): x and y of each cell."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y])


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):  # e^88 is infinite, and its inverse 0
        return np.asarray(1 / (1 + np.exp(-values)), np.float32)
