"""`predict`: one image or a few, the detections at once."""

import sys
import uuid
from functools import partial
from typing import Any

import click

from yolo_gateway.cli import options
from yolo_gateway.cli.batch.files import read
from yolo_gateway.cli.commands.tasks import COLUMNS, rows, summary
from yolo_gateway.cli.output import complain, wants_json, write_json, write_table
from yolo_gateway.cli.pace import Pace
from yolo_gateway.cli.service import Refused, Service
from yolo_gateway.cli.text import is_valid_name, reason_of, shown

PATIENCE_SECONDS = 30.0

EXAMPLES = """\b
Examples:
  yolo-gateway predict bus.jpg dog.jpg
  yolo-gateway predict --classes person --conf 0.5 bus.jpg --json
  ffmpeg -i clip.mp4 -frames:v 1 -f image2 - | yolo-gateway predict -
  yolo-gateway predict https://example.org/bus.jpg
"""


@click.command(epilog=EXAMPLES)
@click.argument("images", metavar="FILE|-|URL...", nargs=-1, required=True)
@options.choices
@options.server
@options.form
def predict(images: tuple[str, ...], server: str, key: str | None, as_json: bool | None, **given: Any) -> int:
    """Detect objects in images: files, `-` for standard input, or URLs that the service fetches.

    As JSON each image is a line with its task, and its name as `file`.
    """
    service, pace, chosen = options.service(server, key), Pace(PATIENCE_SECONDS), options.chosen(given)
    as_lines, failed = wants_json(as_json), False
    for image in images:
        task = _task(image, service, pace, chosen)
        failed |= task["status"] != "SUCCESS"
        _show(image, task, as_lines)
    return int(failed)


def _task(image: str, service: Service, pace: Pace, chosen: dict[str, Any]) -> dict[str, Any]:
    """The finished task, or what stands for one that was refused."""
    once = uuid.uuid4().hex  # a request that is repeated after a lost connection is the same one
    try:
        if image.lower().startswith(("http://", "https://")):
            task = pace.ask(lambda: service.predict_url(image, chosen, once))
        else:
            data = sys.stdin.buffer.read() if image == "-" else read(image).data
            if not data:
                return _refused("no_image", f"{'standard input' if image == '-' else 'the file'} is empty")
            task = pace.ask(lambda: service.predict(data, chosen, once))
        while task["status"] == "PENDING":
            task = pace.ask(partial(service.wait, task["task_id"]))
    except OSError as error:
        return _refused("unreadable", reason_of(error))
    except Refused as error:
        return _refused(error.code, error.detail)
    return task


def _refused(code: str, detail: str) -> dict[str, Any]:
    return {"task_id": None, "status": "FAILURE", "result": detail, "error": {"code": code, "detail": detail}}


def _show(image: str, task: dict[str, Any], as_lines: bool) -> None:
    if as_lines:
        write_json({"file": image if is_valid_name(image) else shown(image), **task})
    elif task["status"] == "SUCCESS":
        click.echo(f"{shown(image)}: {summary(task['result'])}")
        if task["result"]["detections"]:
            write_table(COLUMNS, rows(task["result"]))
    if task["status"] != "SUCCESS":
        complain(f"{shown(image)}: {shown(str(task['result']))}")
    for warning in task["result"]["warnings"] if task["status"] == "SUCCESS" else []:
        click.echo(f"{shown(image)}: {shown(warning)}", err=True)
