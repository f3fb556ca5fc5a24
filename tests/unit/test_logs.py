import json
import logging
import sys

import pytest

from gateway.telemetry import logs


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("gateway.test", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_a_json_line_carries_ids_and_extras() -> None:
    with logs.about(task="t1", request="r1"):
        line = logs.JSONLines("worker").format(record("took %d\nlines", 2, code="defect"))
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed.pop("time").endswith("Z")
    assert parsed == {
        "level": "warning",
        "process": "worker",
        "logger": "gateway.test",
        "message": "took 2\nlines",
        "request_id": "r1",
        "task_id": "t1",
        "code": "defect",
    }


def test_ids_end_with_what_they_are_about() -> None:
    with logs.about(task="t1", request="r1"):
        pass
    assert "task_id" not in json.loads(logs.JSONLines("worker").format(record("idle")))


def test_a_traceback_stays_in_its_json_line() -> None:
    made = record("broke")
    try:
        raise ValueError("planted")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = logs.JSONLines("gateway").format(made)
    assert "\n" not in line
    assert "ValueError: planted" in json.loads(line)["exception"]


def test_a_text_line_is_readable() -> None:
    with logs.about(task="t1", request=""):
        line = logs.Text().format(record("failed: %s", "no pixels", code="invalid_image"))
    assert line[8:] == " WARNING gateway.test: failed: no pixels code=invalid_image task_id=t1"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_configure_logs_to_standard_error(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure("info", log_format, "gateway")
        logging.getLogger("gateway.test").info("hello")
    finally:
        root.handlers[:], root.level = before
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello" in err
    assert err.startswith("{") == (log_format == "json")
