"""`doctor`: what can be seen of the service from here, and what to do about it."""

import datetime
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import click
import httpx

from yolo_gateway.cli import options
from yolo_gateway.cli.output import wants_json, write_json
from yolo_gateway.cli.service import NoAnswer, Service
from yolo_gateway.cli.text import shown

_CLOCK_SECONDS = 5.0
State = Literal["ok", "warning", "error"]
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_STATUS = {"ok": 0, "warning": 1, "error": 2}

EXAMPLES = """\b
Examples:
  yolo-gateway doctor
  yolo-gateway doctor --server https://detect.example.org --json

Exit status: 0 all well, 1 with warnings, 2 if the service cannot be used from here.
"""


class Finding(NamedTuple):
    """What one look showed."""

    check: str
    state: State
    detail: str


@click.command(epilog=EXAMPLES)
@options.server
@options.form
def doctor(server: str, key: str | None, as_json: bool | None) -> int:
    """Check what this machine sees of the service: reachable, ready, the key, the clock."""
    findings = []
    for finding in look(server, key):
        findings.append(finding)
        if not wants_json(as_json):
            mark = click.style(f"{finding.state:7}", fg=_COLOURS[finding.state])
            click.echo(f"{mark}  {finding.check:9}  {shown(finding.detail)}")
    if wants_json(as_json):
        write_json({"server": server, "findings": [finding._asdict() for finding in findings]})
    return max(_STATUS[finding.state] for finding in findings)


def look(server: str, key: str | None) -> Iterator[Finding]:
    """The findings, as they come; nothing more is asked of what cannot be reached."""
    service = options.service(server, key)
    began = time.time()
    try:
        alive = service.answer("/livez")
    except NoAnswer as error:
        yield Finding("reachable", "error", f"{server}: {error}; {_remedy(str(error), server)}")
        return
    milliseconds = (time.time() - began) * 1e3
    yield Finding("reachable", "ok", f"{server} answers in {milliseconds:.0f} ms")
    try:
        home = service.answer("/")
        yield (gateway := _is_gateway(home, alive))
        if gateway.state == "error":
            return
        yield _key(service, options.service(server, None), key)
        yield _ready(service.answer("/status"))
        yield _clock(alive, began + milliseconds / 2e3)
    except NoAnswer as error:
        yield Finding("reachable", "error", f"{server}: {error}, after it had answered; it may be restarting")


def _remedy(error: str, server: str) -> str:
    if "refused" in error:
        return "nothing listens there; is the service started, and the port right?"
    if "CERTIFICATE" in error.upper():
        return "its certificate is not trusted here; SSL_CERT_FILE may name the right authority"
    if "SSL" in error.upper() or "disconnected" in error:
        return f"try {'http' if server.startswith('https') else 'https'}:// instead"
    if "Name or service" in error or "resolution" in error or "nodename" in error:
        return "the name is not known here; check --server"
    return "check --server, the network and firewalls"


def _is_gateway(home: httpx.Response, alive: httpx.Response) -> Finding:
    try:
        if alive.json()["status"] == "alive":
            known = home.json() if home.is_success else {}
            return Finding(
                "service", "ok", f"{known.get('service', 'YOLOv5 gateway')} {known.get('version', '')}".strip()
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Finding(
        "service", "error", f"what answers there is no YOLOv5 gateway (HTTP {alive.status_code}); check --server"
    )


def _key(service: Service, without: Service, key: str | None) -> Finding:
    status = service.answer("/models").status_code
    required = without.answer("/models").status_code == 401
    if status == 401:
        what = "the key is wrong" if key else "a key is required"
        return Finding("key", "error", f"{what}; give the right one by --key or YOLO_GATEWAY_KEY")
    if not required:
        return Finding("key", "ok", "none is required" + (", the one given is ignored" if key else ""))
    return Finding("key", "ok", "accepted")


def _ready(answer: httpx.Response) -> Finding:
    try:
        state = answer.json()
        missing, unavailable, warnings = (state.get(name, {}) for name in ("missing", "unavailable", "warnings"))
    except (ValueError, AttributeError):
        return Finding("ready", "warning", f"HTTP {answer.status_code}")
    lines = [f"{name}: {reason}" for each in (missing, unavailable, warnings) for name, reason in each.items()]
    if answer.is_success and not lines:
        return Finding("ready", "ok", "it takes requests")
    return Finding("ready", "warning", ("not ready; " if missing else "ready; ") + "; ".join(lines))


def _clock(answer: httpx.Response, now: float) -> Finding:
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5  # it is cut to whole seconds
    except (KeyError, ValueError):
        return Finding("clock", "warning", "the service does not say what time it is")
    ahead = now - there
    if abs(ahead) <= _CLOCK_SECONDS:
        return Finding("clock", "ok", "agrees with that of the service")
    text = str(datetime.timedelta(seconds=round(abs(ahead))))
    return Finding("clock", "warning", f"this machine is {text} {'ahead of' if ahead > 0 else 'behind'} the service")
