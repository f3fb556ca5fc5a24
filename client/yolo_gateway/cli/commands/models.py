"""`models`: what the service has."""

from typing import Any

import click

from yolo_gateway.cli import options
from yolo_gateway.cli.output import complain, wants_json, write_json, write_table
from yolo_gateway.cli.pace import Pace
from yolo_gateway.cli.text import shown

EXAMPLES = """\b
Examples:
  yolo-gateway models
  yolo-gateway models --json | jq -r '.models[].labels[]'
"""


@click.command(epilog=EXAMPLES)
@options.server
@options.form
def models(server: str, key: str | None, as_json: bool | None) -> int:
    """List the models that the service has."""
    listing = Pace(0).ask(lambda: options.service(server, key).get("/models"))
    if wants_json(as_json):
        write_json(listing)
    else:
        write_table(
            ["MODEL", "VERSIONS", "CLASSES", "INPUT", ""],
            [_row(each, listing["default"]) for each in listing["models"]],
        )
        for each in listing["unavailable"]:
            complain(f"{shown(each['name'])} is not served: {shown(each['reason'])}")
    return 1 if listing["unavailable"] else 0


def _row(model: dict[str, Any], default: str) -> list[object]:
    versions = ", ".join(each["version"] for each in model["versions"] if each["state"] == "READY")
    size = f"{model['input']['width']} x {model['input']['height']}"
    return [model["name"], versions, len(model["labels"]), size, "default" if model["name"] == default else ""]
