"""How the answers of a deployed graph compare with those of its source, on the same images. Pure functions.

Compared are the boxes that each side keeps after NMS with the other side's candidates. So an overlap that is exactly
on the threshold of NMS is no difference, and every box that a user would see has been looked at from both sides. Where
several answers are right, all are taken: of classes that score alike on a box either, of candidates that score alike at
the cut any.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.vision.nms import nms

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]  # (K, 6): x1, y1, x2, y2 in input pixels, score, class id
Indices = npt.NDArray[np.int64]
Gaps = npt.NDArray[np.float64]
Table = npt.NDArray[np.float32]  # (N, 4 + classes): x1, y1, x2, y2, the score of each class

CONFIDENCE = 0.25
ENOUGH = 10  # boxes; where a model sees fewer, weaker candidates are compared
MOST = 100  # boxes an image and side
SPECK = 1e-5  # weaker scores have its tolerance: a sigmoid of ONNX Runtime is off by some 1e-7, and ends at -18
NEAR, NEAR_SHARE = 4, 0.01  # so many times the tolerance, for so few of the boxes: noise has a tail
ALIKE = 0.02  # of the tolerance of scores: classes this near are alike, however little noise was seen


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Least IoU of two boxes that are the same, and largest difference of their scores.

    Scores below CONFIDENCE have proportionally less. `pixels` is what a side may be off before IoU is taken, since that
    of a sliver is mostly rounding, and what the boxes may be off on average.
    """

    iou: float
    score: float
    pixels: float = 0.05

    @property
    def wide(self) -> "Tolerance":
        """What a few boxes may be off."""
        return Tolerance(1 - NEAR * (1 - self.iou), NEAR * self.score, NEAR * self.pixels)

    def score_of(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The largest difference of each score."""
        return self.score * weight(scores)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two answers to the same images compare.

    IoU and score difference are over the boxes that have a partner. `unmatched` have none; of them `misnamed` have one
    of another class. `near` have one a little beyond the tolerance, and are not counted elsewhere. `tied` have a
    partner of another class that scores alike. `misranked` counts the scores that differ between the two lists of best
    scores, which shows rows that are missing. `shift` is by how many pixels the boxes' centres are off, the median over
    all, the larger of both axes.
    """

    matched: int
    unmatched: int
    smallest_iou: float
    largest_score_difference: float
    misnamed: int = 0
    near: int = 0
    tied: int = 0
    misranked: int = 0
    shift: float = 0.0

    def differs(self, tolerance: Tolerance) -> bool:
        """Whether the answers are not the same. Two that see nothing at all are the same."""
        near = self.near > NEAR_SHARE * (self.matched + self.near)
        return bool(self.unmatched or near or self.misranked or self.shift > tolerance.pixels)

    def summary(self) -> str:
        if not (self.matched or self.unmatched or self.near or self.misranked):
            return "nothing seen on any image, as by the source"
        lost = f", {self.unmatched} WITHOUT A PARTNER" if self.unmatched else ""
        lost += f" ({self.misnamed} of them for their class)" if self.misnamed else ""
        lost += f", {self.near} a little beyond the tolerance" if self.near else ""
        lost += f", {self.misranked} of the best scores differ" if self.misranked else ""
        lost += f", {self.tied} with classes that score alike" if self.tied else ""
        return (
            f"{self.matched} boxes matched{lost}, smallest IoU {self.smallest_iou:.4f}, "
            f"largest score difference {self.largest_score_difference:.5f}, centres off by {self.shift:.3f} pixels"
        )


class Truth:
    """What the source answers to one image. `ask` gives its table, again whenever class scores are asked for.

    The table is not kept: with a thousand classes those of all images would fill gigabytes.
    """

    def __init__(self, ask: Callable[[], Table]) -> None:
        self.ask = ask
        self.rows = best_rows(ask())


@dataclass(frozen=True, slots=True)
class _Match:
    """A box and its partner. `difference` and `gap` are in units of `weight`: that of the scores, and by how much the
    class that one side names falls short of the best in the source's table; 0 where both name the same. `off` is by how
    many pixels the graph's centre is off, `tied` that the two name different classes, `near` that
    only the wide tolerance holds.
    """

    iou: float
    score_difference: float
    difference: float
    gap: float
    off: tuple[float, float]
    tied: bool
    near: bool


def best_rows(table: Table) -> Rows:
    """The best class of each candidate: (N, 4 + classes) → (N, 6)."""
    scores = table[:, 4:]
    best = [scores.max(1, keepdims=True), scores.argmax(1)[:, np.newaxis]]
    return np.concatenate([table[:, :4], *best], 1).astype(np.float32)


def weight(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """By how much the tolerance of scores holds for each: 1 from CONFIDENCE on, less in proportion below."""
    return np.asarray(np.clip(scores, SPECK, CONFIDENCE) / CONFIDENCE, np.float32)


def threshold(truth: Sequence[Rows]) -> float:
    """The highest confidence at which there are enough boxes to compare."""
    for confidence in (CONFIDENCE, 0.05, 0.01, 0.001):
        if sum(len(_seen(rows, confidence, 1000)) for rows in truth) >= ENOUGH:
            return confidence
    return 0.0


def compare(pairs: Sequence[tuple[Truth, Rows]], tolerance: Tolerance, confidence: float) -> Comparison:
    """Compare what a source and its deployed graph answer to the same images."""
    found = [match for truth, got in pairs for match in _matches(truth, got, tolerance, confidence)]
    partners = [match for match in found if match is not None]
    noise = max((match.difference for match in partners if not match.near), default=0.0)
    # A class that wins by noise falls short by twice the noise of a score at most; some more for what was not seen.
    alike = min(2 * tolerance.score, max(4 * noise, ALIKE * tolerance.score))
    named = [match for match in partners if match.gap <= alike]
    same = [match for match in named if not match.near]
    centres = np.abs(np.median([match.off for match in same], axis=0)) if same else np.zeros(2)
    return Comparison(
        matched=len(same),
        unmatched=len(found) - len(named),
        smallest_iou=min((match.iou for match in same), default=1.0),
        largest_score_difference=max((match.score_difference for match in same), default=0.0),
        misnamed=len(partners) - len(named),
        near=len(named) - len(same),
        tied=sum(match.tied for match in same),
        misranked=sum(_misranked(truth.rows, got, tolerance, confidence) for truth, got in pairs),
        shift=float(centres.max()),
    )


def _matches(truth: Truth, got: Rows, tolerance: Tolerance, confidence: float) -> list[_Match | None]:
    """A match, or None, for each box that either side keeps."""
    table = functools.cache(truth.ask)
    real = got[got[:, 4] > 0]
    cut = float(got[:, 4].min()) if len(truth.rows) > len(got) else 0.0  # weaker ones are cut off, not lost
    kept = _seen(truth.rows, confidence, len(got))
    found = []
    for box in kept[kept[:, 4] - tolerance.score_of(kept[:, 4]) > cut]:
        place = np.abs(truth.rows[:, :5] - box[:5]).max(1).argmin()
        gaps = functools.partial(_gaps_of_others, table, place, real)
        found.append(_partner(box, real, tolerance, gaps))
    for box in _seen(real, confidence, len(got)):
        gaps = functools.partial(_gaps_of_class, table, box[5])
        found.append(_partner(box, truth.rows, tolerance, gaps, -1))
    return found


def _seen(rows: Rows, confidence: float, most: int) -> Rows:
    best = np.argsort(-rows[:, 4], kind="stable")[:most]
    return nms(rows[best], confidence=confidence)[:MOST]


def _partner(
    box: Rows, others: Rows, tolerance: Tolerance, gaps_at: Callable[[Indices], Gaps], sign: int = 1, near: bool = False
) -> _Match | None:
    """The one of `others` that matches `box` best: of the same class, else of the class that `gaps_at` puts nearest."""
    ious = _ious(box, others, tolerance.pixels)
    differences = np.abs(others[:, 4] - box[4])
    fitting = np.flatnonzero((ious >= tolerance.iou) & (differences <= tolerance.score_of(box[4])))
    if not len(fitting):
        return None if near else _partner(box, others, tolerance.wide, gaps_at, sign, near=True)
    named = fitting[others[fitting, 5] == box[5]]
    fitting, gaps = (named, np.zeros(len(named))) if len(named) else (fitting, gaps_at(fitting))
    first = np.lexsort((-ious[fitting], gaps))[0]
    best = fitting[first]
    off = sign * (others[best, :2] + others[best, 2:4] - box[:2] - box[2:4]) / 2
    return _Match(
        iou=float(ious[best]),
        score_difference=float(differences[best]),
        difference=float(differences[best] / weight(box[4])),
        gap=float(gaps[first]),
        off=(float(off[0]), float(off[1])),
        tied=not len(named),
        near=near,
    )


def _ious(box: Rows, others: Rows, pixels: float) -> npt.NDArray[np.float64]:
    """IoU of one box with each, after the others' sides have come nearer by `pixels` at most."""
    mine, corners = box[:4].astype(np.float64), others[:, :4].astype(np.float64)
    near = corners + np.clip(mine - corners, -pixels, pixels)
    overlap = np.clip(np.minimum(near[:, 2:], mine[2:]) - np.maximum(near[:, :2], mine[:2]), 0, None).prod(1)
    union = (near[:, 2:] - near[:, :2]).prod(1) + (mine[2:] - mine[:2]).prod() - overlap
    ious = overlap / np.maximum(union, 1e-9)
    ious[(near == mine).all(1)] = 1.0  # of no area
    return np.asarray(ious, np.float64)


def _gaps_of_others(table: Callable[[], Table], place: int, others: Rows, at: Indices) -> Gaps:
    """Of the classes of `others` `at` some places, in one row of the table."""
    return _gaps(table()[[place] * len(at)], others[at, 5])


def _gaps_of_class(table: Callable[[], Table], class_id: float, at: Indices) -> Gaps:
    """Of one class, in the rows of the table `at` some places."""
    return _gaps(table()[at], np.full(len(at), class_id))


def _gaps(table: Table, class_ids: npt.NDArray[np.floating]) -> Gaps:
    """By how much each row's class falls short of the row's best, in units of `weight`; infinite where it is none."""
    ids = class_ids.astype(np.int64)
    known = (ids >= 0) & (ids < table.shape[1] - 4)
    best = table[:, 4:].max(1)
    short = best - table[np.arange(len(table)), 4 + np.where(known, ids, 0)]
    return np.where(known, short / weight(best), np.inf)


def _misranked(truth: Rows, got: Rows, tolerance: Tolerance, confidence: float) -> int:
    """How many of the best scores, in order, differ: sorting takes two lists no further apart than they were."""
    wanted = np.zeros(len(got), np.float32)
    best = -np.sort(-truth[:, 4])[: len(got)]
    wanted[: len(best)] = best
    found = -np.sort(-got[:, 4])
    stronger = np.maximum(wanted, found)
    return int((np.abs(wanted - found) > tolerance.score_of(stronger))[stronger > confidence].sum())
