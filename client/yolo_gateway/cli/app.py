"""`yolo-gateway`: the group of all commands, and how they end."""

import os
import sys
from importlib import metadata
from typing import TextIO

import click

from yolo_gateway.cli.commands.batch import batch
from yolo_gateway.cli.commands.completion import completion
from yolo_gateway.cli.commands.doctor import doctor
from yolo_gateway.cli.commands.models import models
from yolo_gateway.cli.commands.predict import predict
from yolo_gateway.cli.commands.tasks import status, watch

UNUSABLE, INTERRUPTED, NOBODY_READS = 2, 130, 141  # as a shell counts SIGINT and SIGPIPE

EXAMPLES = """\b
Examples:
  yolo-gateway predict bus.jpg
  yolo-gateway batch photos --format coco --out annotations.json
  yolo-gateway doctor --server https://detect.example.org

Exit status: 0 all well, 1 some failed, 2 the command could not do its work.
"""


def _version() -> str:
    try:
        return metadata.version("yolo-gateway")
    except metadata.PackageNotFoundError:
        return "from a checkout, not installed"


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), prog_name="yolo-gateway")
@click.pass_context
def app(context: click.Context) -> None:
    """Detect objects in images by a YOLOv5 gateway."""
    if os.environ.get("NO_COLOR"):
        context.color = False


for command in (predict, batch, models, status, watch, doctor, completion):
    app.add_command(command)


def main() -> None:
    """Run the command that the arguments name, and exit."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    try:
        outcome = app.main(prog_name="yolo-gateway", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(outcome or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        sys.exit(NOBODY_READS)
    except OSError as error:  # a full disk behind standard output
        _drop_output()
        click.echo(f"yolo-gateway: {error.strerror or error}", err=True)
        sys.exit(UNUSABLE)


def _nowhere() -> TextIO:
    """In place of an output that the caller has closed."""
    return open(os.devnull, "w", encoding="utf-8")


def _drop_output() -> None:
    """What is still to be flushed would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
