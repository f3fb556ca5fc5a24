"""When a batch sends again, when it stops, and what it says meanwhile."""

import re
import time
from collections.abc import Callable

import pytest
from yolo_gateway.cli.batch.progress import Progress
from yolo_gateway.cli.pace import GaveUp, Pace
from yolo_gateway.cli.service import NoAnswer, Refused
from yolo_gateway.cli.text import Unusable


def answers(*outcomes: object) -> Callable[[], object]:
    """A service that answers so, one after the other."""
    waiting = iter(outcomes)

    def ask() -> object:
        outcome = next(waiting)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return ask


@pytest.mark.parametrize(
    "refusal",
    [Refused(429, "rate_limited", "", 1), Refused(429, "http_429", "", None), Refused(503, "overloaded", "", 1)],
    ids=["rate", "proxy", "full"],
)
def test_one_that_asks_to_come_back_is_never_given_up_on(refusal: Refused) -> None:
    began = time.monotonic()
    assert Pace(0).ask(answers(refusal, refusal, "well")) == "well"
    assert time.monotonic() - began >= 2


def test_one_that_is_away_is_given_up_on_after_the_patience() -> None:
    assert Pace(5).ask(answers(NoAnswer("refused"), Refused(502, "http_502", "HTTP 502", None), "well")) == "well"
    with pytest.raises(GaveUp, match="the service is away: refused"):
        Pace(0).ask(answers(NoAnswer("refused")))


@pytest.mark.parametrize(
    "refusal",
    [Refused(413, "http_413", "too large for the proxy", None), Refused(415, "unsupported_image", "no image", None)],
    ids=["proxy", "service"],
)
def test_what_is_wrong_with_one_image_is_told_of_that_image(refusal: Refused) -> None:
    with pytest.raises(Refused, match=refusal.detail):
        Pace(0).ask(answers(refusal))


@pytest.mark.parametrize("code", ["unauthorized", "invalid_parameter", "model_not_found", "unknown_host"])
def test_what_is_wrong_with_every_image_ends_the_run(code: str) -> None:
    with pytest.raises(Unusable, match=rf"(no|its key;.*) \({code}\)"):
        Pace(60).ask(answers(Refused(422, code, "no", None)))


def test_progress_counts_from_where_an_earlier_run_was() -> None:
    progress = Progress(total=2_000, done=1_500, quiet=True)
    for index in range(100):
        progress.count(failed=index < 3)
    progress.note = lambda: "slowed down: too many"
    line = progress.line(time.monotonic() + 10)
    assert re.fullmatch(
        r"1,600 of 2,000 files, (9|10)\.\d/s, about 4\d s left, 3 failed; slowed down: too many", line
    ), line
