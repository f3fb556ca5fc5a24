"""The client's public face, and that it agrees with the service it was made for."""

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yolo_gateway
from yolo_gateway import colours, errors, flows, messages, schema
from yolo_gateway.deadline import Deadline
from yolo_gateway.uploads import Options, params_of

from gateway import task
from gateway.errors import error_classes
from gateway.triton import catalogue
from gateway.vision import colours as theirs
from gateway.web.parameters import Choices

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "client" / "yolo_gateway"


def shape(kind: type) -> Any:
    """A type's JSON schema without what is said about it."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(each) for name, each in value.items() if name not in ("description", "title")}
        return [bare(each) for each in value] if isinstance(value, list) else value

    return bare(msgspec.json.schema(kind))


@pytest.mark.parametrize(
    ("own", "service"), [(schema.TaskView, task.TaskView), (schema.ModelList, catalogue.ModelList)]
)
def test_types_are_the_services(own: type, service: type) -> None:
    assert shape(own) == shape(service)


def test_every_code_has_a_class() -> None:
    for each in error_classes():
        made = errors.class_of(each.code)("why", status=each.status, request_id="r1")
        assert made.code == each.code and type(made).__name__ == each.__name__
        assert str(made) == "why (request r1)"
    assert errors.class_of("of another version") is errors.ServiceError


def test_options_are_the_services() -> None:
    assert set(Options.__annotations__) == set(Choices.__struct_fields__) - {"wait"}


def test_colours_are_the_services() -> None:
    assert [colours.class_colour(each) for each in range(300)] == [theirs.class_colour(each) for each in range(300)]
    assert all(colours.ink_on(theirs.class_colour(n)) == theirs.ink_on(theirs.class_colour(n)) for n in range(256))


def test_the_client_imports_nothing_of_the_service() -> None:
    """And of packages only those that it declares: others are imported where they are needed."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    assert not names & {"gateway", "local", "export", "tests", "numpy", "supervision"}


def test_the_face_is_what_it_says() -> None:
    assert all(hasattr(yolo_gateway, name) for name in yolo_gateway.__all__)
    page = (ROOT / "docs" / "client.md").read_text()
    for name in (*yolo_gateway.__all__, *Options.__annotations__):
        assert re.search(rf"\b{name}\b", page), name
    for each in error_classes():
        assert each.__name__ in page


def test_options_as_the_query_takes_them() -> None:
    options: Options = {"classes": ["person", 2], "agnostic_nms": True, "conf": 0.3, "version": 3}
    assert params_of(options) == {"classes": '["person", 2]', "agnostic_nms": "true", "conf": "0.3", "version": "3"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("Fri, 27 Nov 2026 10:00:30 GMT", 30.0), ("Fri, 27 Nov 2026 09:00:00 GMT", 0.0), ("soon", None)],
)
def test_retry_after_in_both_forms(text: str, seconds: float | None) -> None:
    assert messages.seconds_of(text, "Fri, 27 Nov 2026 10:00:00 GMT") == seconds


def test_pauses_grow_and_have_jitter() -> None:
    assert {flows.pause(3, None) for _ in range(20)} != {flows.pause(3, None)}
    assert all(0.1 <= flows.pause(attempt, None) <= 10 for attempt in range(12))
    assert all(5 <= flows.pause(0, 5) <= 7.5 for _ in range(50))


def test_a_wait_ends_before_the_deadline() -> None:
    request = messages.Request("GET", "/")
    for left in (0.0, 0.5, 5.0, 60.0, 600.0):
        asked = float(flows.waiting(request, left).params["wait"])
        assert 0 <= asked <= min(60, left)


def test_a_deadline_shrinks_as_it_is_used() -> None:
    now = 0.0
    deadline = Deadline(10, lambda: now)
    deadline.extend(400_000)
    now = 11.0
    assert deadline.left == 1
    now = 20.0
    assert deadline.left == 0
