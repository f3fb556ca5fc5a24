"""The report of `make gpu-check`: which goals are reached, missed, or not to be judged."""

import pytest

from benchmarks.gpu.report import Host, Load, Report, Row, failed, goals, markdown


def report(
    gpu: str = "NVIDIA H100 80GB HBM3",
    cores: int = 16,
    alone: float = 4100,
    trtexec: float = 4500,
    service: float = 1600,
) -> Report:
    host = Host([gpu], "580.65.06", "2.60.0", "10.13.2.6", cores, "abc1234", 0.3)
    rows = [
        Row("engine", "fp32", trtexec_rate=trtexec / 2, alone=Load(alone / 2), map50_95=0.280),
        Row("engine", "fp16", trtexec_rate=trtexec, alone=Load(alone, batches={"16": 900, "3": 100}), map50_95=0.279),
    ]
    return Report(host, "yolov5n", "coco128", rows, Load(service), "engine fp16")


def verdicts(given: Report) -> list[bool | None]:
    return [goal.reached for goal in goals(given)]


def test_all_is_reached() -> None:
    assert verdicts(report()) == [True, True, True, True, True]
    assert not failed(report())


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        (report(trtexec=4900), [0, 1]),
        (report(alone=3900, trtexec=4000), [2]),
        (report(service=1400), [3]),
    ],
    ids=["behind trtexec", "slow", "a slow service"],
)
def test_what_is_missed_is_said(given: Report, missed: list[int]) -> None:
    assert [index for index, reached in enumerate(verdicts(given)) if reached is False] == missed
    assert failed(given) and "**missed**" in markdown(given)


def test_a_loss_of_fp16_is_a_miss() -> None:
    given = report()
    given.rows[1].map50_95 = 0.277
    assert verdicts(given)[-1] is False


def test_another_machine_is_not_judged_by_the_figures_of_an_h100() -> None:
    given = report(gpu="NVIDIA A10", cores=8, alone=900, trtexec=1000, service=300)
    assert verdicts(given) == [True, True, None, None, True]
    assert not failed(given) and "not to be judged here" in markdown(given)


def test_what_did_not_work_is_told_and_fails() -> None:
    given = report()
    given.rows.append(Row("CUDA provider", "fp32", problem="Triton did not load it: no memory"))
    assert failed(given) and "**It did not work**: Triton did not load it: no memory" in markdown(given)


def test_the_page_has_the_batches_that_formed() -> None:
    assert "14.7 images an execution (size: executions; 3: 100, 16: 900)" in markdown(report())
