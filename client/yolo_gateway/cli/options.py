"""Options that several commands have."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from yolo_gateway.calls import TASK_ID
from yolo_gateway.cli.service import Service
from yolo_gateway.cli.text import Unusable, shown
from yolo_gateway.connection import DEFAULT_SERVER, KEY, SERVER, Address
from yolo_gateway.errors import InvalidInput
from yolo_gateway.uploads import has_classes

_F = TypeVar("_F", bound=Callable[..., Any])


def _all(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorated(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


def _address(context: click.Context, option: click.Parameter, value: str) -> str:
    """As the Python client checks it."""
    try:
        return Address(value, "").server
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error


def _sendable(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    try:
        Address(DEFAULT_SERVER, value)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from error
    return value


def _task_id(context: click.Context, argument: click.Parameter, value: str) -> str:
    if not TASK_ID.fullmatch(value):
        raise click.BadParameter(f"{shown(value)!r} is no task id; `predict --json` prints one as task_id")
    return value


def _classes(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The service takes an empty list as all classes, which is not what a variable that came out empty means."""
    if value is not None and not has_classes(value):
        raise click.BadParameter("it is empty; give labels or ids, or leave it out for all of them")
    return value


task = click.argument("task", callback=_task_id)

server = _all(
    click.option(
        "--server",
        callback=_address,
        metavar="URL",
        envvar=SERVER,
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        help="Address of the service.",
    ),
    click.option(
        "--key",
        callback=_sendable,
        envvar=KEY,
        show_envvar=True,
        help="API key; other users of this machine cannot see it in the environment.",
    ),
)

form = click.option(
    "--json/--table",
    "as_json",
    default=None,
    help="What is written to standard output; otherwise a terminal gets the table, all else JSON.",
)

choices = _all(
    click.option("--model", help="A model that `models` lists; the operator's default otherwise."),
    click.option("--model-version", metavar="NUMBER", help="A version of it; the newest otherwise."),
    click.option("--conf", type=click.FloatRange(0, 1), help="Minimum score of a detection."),
    click.option("--iou", type=click.FloatRange(0, 1), help="NMS removes the weaker of boxes that overlap more."),
    click.option("--max-det", type=click.IntRange(1, 1000), help="Maximum detections in an image."),
    click.option(
        "--classes",
        callback=_classes,
        metavar="NAMES",
        help="Only these labels or ids, with commas between: person,2",
    ),
    click.option("--agnostic-nms", is_flag=True, help="Boxes of different classes suppress each other too."),
)


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a request from the options of `choices`; those that were not given are left out."""
    names = {"model": "model", "model_version": "version"} | {
        name: name for name in ("conf", "iou", "max_det", "classes", "agnostic_nms")
    }
    values = {names[name]: value for name, value in given.items() if name in names and value not in (None, False)}
    return {name: "true" if value is True else value for name, value in values.items()}


def service(server: str, key: str | None, connections: int = 4) -> Service:
    """Raises Unusable."""
    try:
        return Service(server, key, connections)
    except InvalidInput as error:
        raise Unusable(str(error)) from error
