"""/docs: the OpenAPI document as a page that needs nothing but this service, not even JavaScript."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from gateway.errors import GatewayError, TaskFailed

if TYPE_CHECKING:
    from jinja2 import Environment

Document = Mapping[str, Any]

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LIMITS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "exclusiveMinimum": "> {}",
    "minLength": "at least {} character(s)",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "pattern": "pattern {}",
    "const": "{}",
}


def page(document: Document, errors: Iterable[type[GatewayError]], base_url: str, home: bool) -> str:
    """The whole page, with a link to the one at `/` where that is `home`.

    The document is of our own making; still, the template escapes everything in it.
    """
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    return (
        _environment()
        .get_template("docs.html")
        .render(
            document=document,
            groups={
                tag["name"]: [each for each in operations if tag["name"] in each[2]["tags"]] for tag in document["tags"]
            },
            errors=[
                {
                    "code": error.code,
                    "status": error.status,
                    "description": " ".join((error.__doc__ or "").split()),
                    "ends_a_task": issubclass(error, TaskFailed),
                }
                for error in errors
            ],
            base_url=base_url,
            home=home,
        )
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader  # 2 MB that only this page needs

    environment = Environment(loader=PackageLoader("gateway.openapi"), autoescape=True, trim_blocks=True)
    filters = {"type": _type, "inline": _inline, "text": _text, "path": _path, "curl": _curl, "json": _json}
    environment.filters.update(filters, first_line=_first_line)
    return environment


def _type(schema: Document) -> Markup:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    for key in ("oneOf", "anyOf"):
        if key in schema and "properties" not in schema:
            return Markup(" or ").join(map(_type, schema[key]))
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema:
        return Markup(" or ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    kind = escape(schema.get("type", ""))
    if "prefixItems" in schema:
        return Markup("list of {}: ").format(len(schema["prefixItems"])) + Markup(", ").join(
            map(_type, schema["prefixItems"])
        )
    if kind == "array":
        kind = Markup("list of {}").format(_type(schema.get("items", {})))
    elif isinstance(schema.get("additionalProperties"), Mapping):
        kind = Markup("map to {}").format(_type(schema["additionalProperties"]))
    elif schema.get("format") == "binary":
        kind = Markup("bytes")
    elif schema.get("contentEncoding"):
        kind = escape(schema["contentEncoding"])
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return Markup(", ").join(filter(None, [kind, *limits]))


def _path(path: str) -> Markup:
    return Markup(re.sub(r"(\{\w+\})", r"<em>\1</em>", str(escape(path))))


def _first_line(description: str) -> str:
    codes = re.findall(r"^- (`\w+`)", description, re.MULTILINE)
    return ", ".join(codes) if description.startswith("- ") else description.partition("\n")[0]


def _curl(url: str, method: str, body: Document) -> str:
    options = "" if method == "get" else f" -X {method.upper()}" if method != "post" or not body else ""
    return f"curl -s{options}{' -F image=@photo.jpg' if body else ''} '{url}'"


def _json(value: object, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _text(text: str) -> Markup:
    """Paragraphs and lists of lines that begin with a dash."""
    blocks = Markup()
    for block in filter(None, (text or "").split("\n\n")):
        lines = block.splitlines()
        if all(line.startswith("- ") for line in lines):
            items = Markup().join(Markup("<li>{}</li>").format(_inline(line[2:])) for line in lines)
            blocks += Markup("<ul>{}</ul>").format(items)
        else:
            blocks += Markup("<p>{}</p>").format(_inline(block))
    return blocks


def _inline(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text or ""))))
