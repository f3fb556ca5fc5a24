"""`status` and `watch`: a task after it was sent."""

from typing import Any

import click

from yolo_gateway.cli import options
from yolo_gateway.cli.output import complain, wants_json, write_json, write_table
from yolo_gateway.cli.pace import Pace
from yolo_gateway.cli.service import Refused, Service
from yolo_gateway.cli.text import duration, shown

PATIENCE_SECONDS = 60.0
COLUMNS = ("LABEL", "SCORE", "X1", "Y1", "X2", "Y2")


@click.command(epilog="\b\nExamples:\n  yolo-gateway status 9abbcd21edd44c20890fff9dcd287603\n")
@options.task
@options.server
@options.form
def status(task: str, server: str, key: str | None, as_json: bool | None) -> int:
    """Show the task with the id TASK as it is now. Exit status 1 if it failed, or is not known."""
    service = options.service(server, key)
    try:
        view = Pace(0).ask(lambda: service.get(f"/result/{task}"))
    except Refused as error:
        complain(f"{task}: {error.detail}")
        return 1
    return _show(view, wants_json(as_json))


@click.command(epilog="\b\nExamples:\n  yolo-gateway watch 9abbcd21edd44c20890fff9dcd287603\n")
@options.task
@options.server
@options.form
def watch(task: str, server: str, key: str | None, as_json: bool | None) -> int:
    """Follow the task with the id TASK until it has finished: a line a change. Exit status as of `status`."""
    pace, follower = Pace(PATIENCE_SECONDS), _Follower(options.service(server, key), wants_json(as_json))
    try:
        while not follower.finished:
            pace.ask(lambda: follower.follow(task))
    except Refused as error:
        complain(f"{task}: {error.detail}")
        return 1
    return follower.status


class _Follower:
    """Shows each state once, also after a connection that broke."""

    def __init__(self, service: Service, as_json: bool) -> None:
        self._service, self._as_json = service, as_json
        self._last = ""
        self.finished, self.status = False, 0

    def follow(self, task: str) -> None:
        for view in self._service.changes(task):
            if view["state"] != self._last:
                self._last = view["state"]
                self.status = _show(view, self._as_json)
            self.finished = view["status"] != "PENDING"


def _show(view: dict[str, Any], as_json: bool) -> int:
    """Write a task; the exit status that it is worth."""
    if as_json:
        write_json(view)
    elif view["status"] == "SUCCESS":
        click.echo(f"{view['state']}  {summary(view['result'])}")
        write_table(COLUMNS, rows(view["result"]))
    elif view["status"] == "FAILURE":
        click.echo(f"{view['state']}  {shown(str(view['result']))}")
    else:
        click.echo(f"{view['state']}{_outlook(view)}")
    return 1 if view["status"] == "FAILURE" else 0


def _outlook(view: dict[str, Any]) -> str:
    position, seconds = view.get("position"), view.get("ready_in_seconds")
    ahead = "" if position is None else f", {position} ahead"
    return ahead + ("" if seconds is None else f", ready in about {duration(seconds)}")


def summary(result: dict[str, Any]) -> str:
    """`2 detections in 810 x 1080 by yolov5n version 1`."""
    found, image, model = result["detections"], result["image"], result["model"]
    number = f"{len(found)} detection{'' if len(found) == 1 else 's'}"
    return f"{number} in {image['width']} x {image['height']} by {shown(model['name'])} version {model['version']}"


def rows(result: dict[str, Any]) -> list[list[object]]:
    """A row a detection, as COLUMNS names them."""
    return [
        [found["label"], f"{found['score']:.4f}", *(f"{found['box'][side]:.2f}" for side in ("x1", "y1", "x2", "y2"))]
        for found in result["detections"]
    ]
