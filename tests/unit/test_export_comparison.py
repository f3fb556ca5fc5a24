"""What counts as a difference between a graph and its source, and what does not."""

from collections.abc import Callable

import numpy as np
import pytest

from export.comparison import CONFIDENCE, Comparison, Rows, Table, Tolerance, Truth, best_rows, compare, threshold

FP32 = Tolerance(iou=0.99, score=0.005)
FP16 = Tolerance(iou=0.96, score=0.02, pixels=0.25)
CLASSES = 4


def rows(*scores: float, shift: float = 0.0, class_id: int = 0) -> Rows:
    """Boxes of 40 by 50 pixels, side by side."""
    boxes = [[50.0 * i + shift, 10, 50.0 * i + 40 + shift, 60, score, class_id] for i, score in enumerate(scores)]
    return np.array(boxes, np.float32)


def table(found: Rows, *others: tuple[int, float], classes: int = CLASSES) -> Table:
    """The source's table for rows; `others` are further classes with their scores relative to the best."""
    answer = np.zeros((len(found), 4 + classes), np.float32)
    answer[:, :4] = found[:, :4]
    for class_id, factor in others:
        answer[:, 4 + class_id] = found[:, 4] * factor
    answer[np.arange(len(found)), 4 + found[:, 5].astype(int)] = found[:, 4]
    return answer


def found(source: Table, got: Rows, tolerance: Tolerance = FP32, confidence: float = CONFIDENCE) -> Comparison:
    padded = np.concatenate([got, np.zeros((max(1000 - len(got), 0), 6), np.float32)])
    return compare([(Truth(lambda: source), padded)], tolerance, confidence)


def cut(source: Table, most: int) -> Rows:
    """What a true graph answers: the best rows, best first, padded with zeros."""
    best = best_rows(source)
    best = best[np.argsort(-best[:, 4], kind="stable")][:most]
    return np.concatenate([best, np.zeros((most - len(best), 6), np.float32)])


def random_table(kind: str, classes: int = 80, seed: int = 0) -> Table:
    """1,500 candidates of an untrained model. `kind`: how its scores are distributed."""
    random = np.random.default_rng(seed)
    centres, sides = random.uniform(0, 320, (1500, 2)), random.uniform(8, 150, (1500, 2))
    logits = random.normal(0, 1, (1500, classes))
    scores = {
        "spread": 1 / (1 + np.exp(-logits)) ** 3,
        "all one": np.ones_like(logits),
        "nearly one": 1 - 1e-8 * np.abs(logits),
        "saturated": np.minimum(1, 1 / (1 + np.exp(-20 * logits))),
        "nearly zero": 1e-7 * np.exp(logits),
        "alike": 3e-5 * (1 + 1e-7 * logits),
        "steps": np.round(1 / (1 + np.exp(-logits)), 1),
    }[kind]
    return np.concatenate([centres - sides / 2, centres + sides / 2, scores], 1).astype(np.float32)


KINDS = ["spread", "all one", "nearly one", "saturated", "nearly zero", "alike", "steps"]


def noisy(source: Table, score: float, pixels: float, seed: int = 1) -> Table:
    """The same answers, computed with another rounding: of the logits, which moves a score of 1 by nothing."""
    random = np.random.default_rng(seed)
    answer = source.astype(np.float64)
    answer[:, :4] += random.normal(0, pixels, answer[:, :4].shape)
    answer[:, 4:] *= 1 + (1 - answer[:, 4:]) * random.uniform(-score, score, answer[:, 4:].shape)
    return answer.astype(np.float32)


def test_equal_answers_match() -> None:
    same = found(table(rows(0.9, 0.5)), rows(0.9, 0.5))
    assert same == Comparison(matched=4, unmatched=0, smallest_iou=1.0, largest_score_difference=0.0)
    assert not same.differs(FP32)


@pytest.mark.parametrize(
    "got",
    [
        pytest.param(rows(0.9, 0.52), id="score"),
        pytest.param(rows(0.9, 0.5, shift=3), id="place"),
        pytest.param(rows(0.9, 0.5, class_id=1), id="class"),
        pytest.param(rows(0.9, 0.5, class_id=80), id="class that is none"),
        pytest.param(rows(0.9), id="missing"),
        pytest.param(rows(0.9, 0.5, 0.4), id="extra"),
    ],
)
def test_a_difference_beyond_the_tolerance_is_found(got: Rows) -> None:
    assert found(table(rows(0.9, 0.5)), got).differs(FP32)


def test_a_box_on_the_threshold_of_nms_is_no_difference() -> None:
    """Two boxes whose overlap is the threshold: each side keeps what the other suppresses, and both have both."""
    pair = np.array([[0, 0, 100, 100, 0.9, 0], [0, 0, 100, 45, 0.8, 0]], np.float32)
    nudged = pair.copy()
    nudged[1, 3] = 45.01
    assert not found(table(pair), nudged).differs(FP32)


def test_weak_boxes_have_less_tolerance() -> None:
    assert found(table(rows(0.010)), rows(0.014), confidence=0.001).differs(FP32)
    assert not found(table(rows(0.410)), rows(0.414), confidence=0.001).differs(FP32)


def test_candidates_beyond_the_best_are_not_missed() -> None:
    scores = np.linspace(0.9, 0.5, 1100).tolist()
    assert not found(table(rows(*scores)), rows(*scores[:1000])).differs(FP32)


def test_where_a_model_sees_little_weaker_candidates_are_compared() -> None:
    assert threshold([rows(*[0.9] * 10)]) == 0.25
    assert threshold([rows(*[0.02] * 10)]) == 0.01
    assert threshold([rows(0.9)]) == 0.0


@pytest.mark.parametrize(
    ("others", "alike"),
    [
        pytest.param([(1, 1.0)], True, id="equal"),
        pytest.param([(1, 0.9999995)], True, id="equal but for rounding"),
        pytest.param([(1, 0.97)], False, id="weaker"),
        pytest.param([(2, 1.0)], False, id="another is equal"),
    ],
)
@pytest.mark.parametrize("score", [1.0, 0.4, 0.002], ids=str)
def test_of_classes_that_score_alike_either_is_right(
    score: float, others: list[tuple[int, float]], alike: bool
) -> None:
    answer = found(table(rows(*[score] * 3), *others), rows(*[score] * 3, class_id=1), confidence=0.0)
    assert (answer.differs(FP32), answer.tied, answer.misnamed) == ((False, 6, 0) if alike else (True, 0, 6))


def test_where_scores_are_noisy_classes_are_alike_within_the_noise() -> None:
    source = table(rows(0.8, 0.6, 0.5), (1, 0.998))
    quiet, loud = rows(0.8, 0.6, 0.5), rows(0.803, 0.598, 0.5)
    quiet[2, 5] = loud[2, 5] = 1
    assert not found(source, loud).differs(FP32)
    assert found(source, quiet).misnamed == 2


@pytest.mark.parametrize("tolerance", [FP32, FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_model_is_no_difference_to_itself(kind: str, tolerance: Tolerance) -> None:
    """Thousands of equal scores: which class and which of the candidates are named at the cut is left to rounding."""
    source = random_table(kind)
    score, pixels = (0.01, 0.05) if tolerance is FP16 else (1e-5, 0.002)
    got = cut(noisy(source, score, pixels), 1000)
    confidence = threshold([best_rows(source)])
    answer = found(source, got, tolerance, confidence)
    assert answer.matched and not answer.differs(tolerance), answer.summary()


def test_classes_beyond_the_noise_are_told_apart_in_an_untrained_model_too() -> None:
    source = random_table("spread")
    got = cut(source, 1000)
    got[:, 5] = (got[:, 5] + 1) % 80
    assert found(source, got).misnamed > 100


def shifted(got: Rows, x: float, y: float) -> Rows:
    return got + np.array([x, y, x, y, 0, 0], np.float32)


def resized(got: Rows, factor: float) -> Rows:
    return got * np.array([*[factor] * 4, 1, 1], np.float32)


WRONG: dict[str, Callable[[Rows], Rows]] = {
    "half a pixel to the right": lambda got: shifted(got, 0.5, 0),
    "a third of a pixel down": lambda got: shifted(got, 0, 0.3),
    "of another image size": lambda got: resized(got, 0.99),
    "half of the rows": lambda got: got * (np.arange(len(got)) % 2 == 0)[:, None],
    "the worst first": lambda got: np.concatenate([got[500:], np.zeros((500, 6), np.float32)]),
    "x and y swapped": lambda got: got[:, [1, 0, 3, 2, 4, 5]],
    "stronger scores": lambda got: np.concatenate([got[:, :4], got[:, 4:5] * 1.1, got[:, 5:]], 1),
    "nothing": np.zeros_like,
}


@pytest.mark.parametrize("tolerance", [FP32, FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["spread", "saturated", "steps"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_graph_is_found_where_scores_are_equal_too(wrong: str, kind: str, tolerance: Tolerance) -> None:
    source = random_table(kind)
    got = WRONG[wrong](cut(source, 1000)).astype(np.float32)
    answer = found(source, got, tolerance, threshold([best_rows(source)]))
    assert answer.differs(tolerance), answer.summary()


@pytest.mark.parametrize(("few", "differs"), [(1, False), (3, True)])
def test_one_box_in_a_hundred_may_be_a_little_beyond_the_tolerance(few: int, differs: bool) -> None:
    source = table(rows(*np.linspace(0.9, 0.5, 100).tolist()))
    got = best_rows(source)
    got[:few, 2] += 1  # of 40 pixels
    answer = found(source, got)
    assert (answer.near, answer.unmatched, answer.differs(FP32)) == (2 * few, 0, differs)
    got[0, 2] += 5
    assert found(source, got).unmatched == 2


def test_a_sliver_is_the_same_where_its_sides_are() -> None:
    sliver = np.array([[100, 50, 100.3, 350, 0.9, 0], [10, 20, 10, 20, 0.8, 0]], np.float32)
    moved = sliver + np.array([[0.02, 0.1, 0.03, -0.2, 0, 0], [0.02, 0, 0.02, 0, 0, 0]], np.float32)
    assert not found(table(sliver), moved).differs(FP32)
    assert found(table(sliver), sliver + np.array([0.3, 0, 0.3, 0, 0, 0], np.float32)).differs(FP32)


def test_two_answers_without_any_detection_are_the_same() -> None:
    nothing = found(np.zeros((20, 8), np.float32), np.zeros((1000, 6), np.float32), confidence=0.0)
    assert not nothing.differs(FP32) and nothing.summary() == "nothing seen on any image, as by the source"
    assert found(np.zeros((20, 8), np.float32), rows(0.9), confidence=0.0).differs(FP32)


def test_the_table_is_asked_for_again_only_where_classes_differ() -> None:
    asked = []

    def ask() -> Table:
        asked.append(1)
        return table(rows(0.9, 0.8), (1, 1.0))

    truth = Truth(ask)
    compare([(truth, rows(0.9, 0.8))], FP32, CONFIDENCE)
    assert len(asked) == 1
    compare([(truth, rows(0.9, 0.8, class_id=1))], FP32, CONFIDENCE)
    assert len(asked) == 2
