"""`batch`: many images into one data set."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from yolo_gateway.cli import options
from yolo_gateway.cli.batch.files import Files, find
from yolo_gateway.cli.batch.journal import Header, has_begun, open_journal
from yolo_gateway.cli.batch.outputs import Form, Output, Tally, picture_name, refuse_twins
from yolo_gateway.cli.batch.progress import Progress
from yolo_gateway.cli.batch.run import Run, begin
from yolo_gateway.cli.batch.sending import Sender
from yolo_gateway.cli.output import complain, wants_json, write_json, write_table
from yolo_gateway.cli.pace import Pace
from yolo_gateway.cli.service import Service
from yolo_gateway.cli.text import Interrupted, Unusable, counted, reason_of, shown

EXAMPLES = """\b
Examples:
  yolo-gateway batch photos --format coco --out annotations.json
  yolo-gateway batch photos --format yolo --out dataset --conf 0.4
  yolo-gateway batch 'photos/2026-*/*.jpg' --format csv --out found.csv
  find . -name '*.jpg' -print0 | yolo-gateway batch - --format json --out found.jsonl
  yolo-gateway batch photos --format coco --out annotations.json --resume
"""


def _path(context: click.Context, option: click.Parameter, value: str | None) -> Path | None:
    """An empty one would be the folder that one stands in, which nobody means whose variable came out empty."""
    if value == "":
        raise click.BadParameter("it is empty; name a file or a folder")
    return None if value is None else Path(value)


@click.command(epilog=EXAMPLES)
@click.argument("sources", metavar="DIR|PATTERN|LIST|-...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["coco", "yolo", "csv", "json"]), default="coco", show_default=True)
@click.option("--out", type=click.Path(), callback=_path, required=True, help="File to write; for yolo a folder.")
@click.option("--annotate", type=click.Path(), callback=_path, metavar="DIR", help="Also save pictures with the boxes.")
@click.option("--resume", is_flag=True, help="Go on with the run that began with this --out, or begin it.")
@click.option("--senders", type=click.IntRange(1, 256), default=12, show_default=True, help="Images sent at a time.")
@click.option(
    *("--patience", "patience"),
    type=click.FloatRange(0),
    default=300,
    show_default=True,
    help="Seconds to wait for a service that is away, before stopping so that --resume can go on.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@options.choices
@options.server
@options.form
def batch(
    sources: tuple[str, ...],
    form: Form,
    out: Path,
    annotate: Path | None,
    resume: bool,
    senders: int,
    patience: float,
    quiet: bool,
    server: str,
    key: str | None,
    as_json: bool | None,
    **given: Any,
) -> int:
    """Detect objects in all images of folders, patterns or lists, and write one data set.

    What has finished is in a journal next to --out: after a crash, or Ctrl-C, the same command with --resume goes on.
    Files that fail are listed next to --out too, with reasons, and end nothing.
    """
    output = Output(form, out)
    output.prepare()
    service = options.service(server, key, senders)
    chosen = options.chosen(given) | ({"annotate": "true"} if annotate else {})
    header = _header(service, chosen)
    files = find(list(sources))
    _check(files, output, annotate)
    for note in files.notes:
        click.echo(note, err=True)
    run = _begun(files, output, header, annotate, resume, quiet)
    pace = Pace(patience)
    run.progress.note = lambda: pace.reason
    _go(run, Sender(service, header, chosen, pace, annotate).send, senders)
    tally = _written(run, output, header)
    _summarise(run, output, tally, annotate, wants_json(as_json))
    return 1 if tally.failed else 0


def _header(service: Service, chosen: dict[str, Any]) -> Header:
    """What the run is made with: all answers must be of the version that answers now. Raises Unusable."""
    pace = Pace(0)
    name = chosen.get("model") or pace.ask(lambda: service.get("/models"))["default"]
    model = pace.ask(lambda: service.get(f"/models/{quote(name, safe='')}"))
    ready = [each["version"] for each in model["versions"] if each["state"] == "READY"]
    version = chosen.get("version") or max(ready, key=int, default="")
    if version not in ready:
        raise Unusable(f"{shown(name)} has no version {shown(version) or 'that is ready'}; see `yolo-gateway models`")
    rest = {name: value for name, value in chosen.items() if name not in ("model", "version")}
    return Header(name, version, model["labels"], rest)


def _check(files: Files, output: Output, annotate: Path | None) -> None:
    """Nothing is overwritten by anything else. Raises Unusable."""
    output.check(files.names)
    if annotate is None:
        return
    refuse_twins(files.names, picture_name, "--annotate")
    inside = os.path.commonpath([os.path.realpath(annotate), os.path.realpath(files.base)])
    if inside == os.path.realpath(files.base):
        raise Unusable(f"{shown(str(annotate))}: is inside of {shown(files.base)}, whose images it would be mixed with")
    places = (annotate / picture_name(name) for name in files.names)
    taken = next(filter(os.path.lexists, places), None)
    try:
        if taken is not None and not has_begun(output.journal):  # otherwise the pictures are that run's
            raise Unusable(f"{shown(str(taken))}: is there already; choose another --annotate, or move it away")
        annotate.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"{shown(str(annotate))}: {reason_of(error)}") from error


def _begun(files: Files, output: Output, header: Header, annotate: Path | None, resume: bool, quiet: bool) -> Run:
    journal = open_journal(output.journal, header, resume)

    def has_picture(name: str) -> bool:
        return annotate is None or (annotate / picture_name(name)).exists()

    return begin(files, journal, lambda done: Progress(len(files.names), done, quiet), has_picture)


def _go(run: Run, send: Callable[..., Any], senders: int) -> None:
    """Raises Unusable and Interrupted, which say how to go on."""
    try:
        run.go(send, senders)
    except Unusable as error:
        raise Unusable(f"{error.message}; {_how_to_go_on(run)}") from error
    except OSError as error:
        raise Unusable(f"the journal: {reason_of(error)}; {_how_to_go_on(run)}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(_how_to_go_on(run)) from error
    finally:
        run.progress.close()


def _how_to_go_on(run: Run) -> str:
    done = sum(position >= 0 for position in run.positions)
    total = counted(len(run.files.names), "file")
    return f"{done:,} of {total} are done; the same command with --resume goes on"


def _written(run: Run, output: Output, header: Header) -> Tally:
    try:
        return output.write(run.entries, header)
    except OSError as error:
        raise Unusable(f"{shown(str(output.out))}: {reason_of(error)}; {_how_to_go_on(run)}") from error


def _summarise(run: Run, output: Output, tally: Tally, annotate: Path | None, as_json: bool) -> None:
    for entry in tally.examples:
        complain(f"{shown(entry.name)}: {shown(entry.reason)}")
    if tally.failed > len(tally.examples):
        complain(f"and {tally.failed - len(tally.examples):,} more, see {shown(str(output.failures))}")
    click.echo(run.progress.summary(), err=True)
    values = {"files": tally.succeeded + tally.failed, "succeeded": tally.succeeded, "failed": tally.failed}
    values |= {"warnings": tally.warnings, "detections": tally.detections}
    places = {"out": output.out, "failures": output.failures if tally.failed else None, "annotated": annotate}
    named = {name: shown(str(place)) for name, place in places.items() if place is not None}
    if as_json:
        write_json({**values, **named})
    else:
        write_table(
            list(map(str.upper, [*values, *named])), [[*(f"{each:,}" for each in values.values()), *named.values()]]
        )
