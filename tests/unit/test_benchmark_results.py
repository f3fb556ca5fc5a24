import pytest

from benchmarks.load import Sample
from benchmarks.results import ArmFigures, Report, judge, latency_of, markdown, percentile
from benchmarks.senders import signature


def report(**arms: ArmFigures) -> Report:
    all_arms = {name: ArmFigures(skipped="not here") for name in ("litserve", "mosec", "flask_celery")} | arms
    return Report("machine", "yolov5n", 1, "now", 0.0, arms=all_arms)


@pytest.mark.parametrize(("share", "expected"), [(50, 2), (95, 4), (99, 4), (25, 1)])
def test_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([1, 2, 3, 4], share) == expected


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 50) == 0


def test_throughput_counts_right_answers_only() -> None:
    sample = Sample(2.0, right=20, wrong=3, failed=1, latencies_ms=[10.0] * 20, timings_ms=[], cpu_seconds=0.1)
    assert latency_of(sample).rate == 10


def test_goals_are_medians_of_the_ratios_of_each_round() -> None:
    figures = report(
        ours=ArmFigures(rates=[30, 20, 40]),
        onnxruntime=ArmFigures(rates=[40, 40, 40]),
        triton=ArmFigures(rates=[30, 25, 44]),
    )
    bare, triton = judge(figures)
    assert (bare.value, bare.spread, bare.met) == (0.75, (0.5, 1.0), True)
    assert triton.value == pytest.approx(40 / 44) and triton.met


def test_arms_that_were_skipped_have_no_goal_and_say_why() -> None:
    figures = report(ours=ArmFigures(rates=[1.0]), onnxruntime=ArmFigures(rates=[1.0]), triton=ArmFigures(rates=[1.0]))
    figures.goals = judge(figures)
    assert len(figures.goals) == 2
    assert "LitServe | skipped: not here" in markdown(figures)


def test_signature_does_not_depend_on_the_order() -> None:
    assert signature([[1.001, 2.0, 0.9, "a"], [1.0, 2.0, 0.5, "b"]]) == signature(
        [[1.0, 2.0, 0.5, "b"], [1.0, 2.0, 0.9, "a"]]
    )
