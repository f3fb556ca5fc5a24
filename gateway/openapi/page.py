"""/docs: the OpenAPI document as a page that needs nothing but this service, not even JavaScript."""

import json
import re
from collections.abc import Iterable, Mapping, Set
from html import escape
from typing import Any

from gateway.errors import GatewayError, TaskFailed

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


def page(document: Document, errors: Iterable[type[GatewayError]], base_url: str) -> str:
    """The whole page. The document is of our own making; still, everything in it is escaped."""
    info = document["info"]
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    groups = {tag["name"]: [each for each in operations if tag["name"] in each[2]["tags"]] for tag in document["tags"]}
    schemas = document["components"]["schemas"]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/docs.css">
<script src="/static/docs.js" defer></script>
</head>
<body>
<nav aria-label="Contents">
<p class="name"><a href="#top">{escape(info["title"])}</a> <small>{escape(info["version"])}</small></p>
{"".join(_menu(tag, members) for tag, members in groups.items())}
<h2>More</h2>
<ul><li><a href="#errors">Errors</a></li><li><a href="#schemas">Schemas</a></li>
<li><a href="/openapi.json">openapi.json</a></li></ul>
</nav>
<main id="top">
<h1>{escape(info["title"])}</h1>
{_text(info["description"])}
{"".join(_group(tag, members, base_url) for tag, members in groups.items())}
<section><h2 id="errors">Errors</h2>{_errors(errors)}</section>
<section><h2 id="schemas">Schemas</h2>{"".join(_schema(name, schema) for name, schema in schemas.items())}</section>
</main>
</body>
</html>
"""


def _menu(tag: str, operations: Iterable[tuple[str, str, Document]]) -> str:
    rows = "".join(
        f'<li><a href="#{escape(operation["operationId"])}">{_method(method)} {escape(path)}</a></li>'
        for path, method, operation in operations
    )
    return f"<h2>{escape(tag)}</h2><ul>{rows}</ul>"


def _method(method: str) -> str:
    return f'<span class="method {escape(method)}">{escape(method.upper())}</span>'


def _group(tag: str, operations: Iterable[tuple[str, str, Document]], base_url: str) -> str:
    return f"<section><h2>{escape(tag)}</h2>{''.join(_operation(*each, base_url) for each in operations)}</section>"


def _operation(path: str, method: str, operation: Document, base_url: str) -> str:
    identity = escape(operation["operationId"])
    body = operation.get("requestBody", {}).get("content", {})
    return f"""<article id="{identity}" data-method="{escape(method)}" data-path="{escape(path)}">
<h3>{_method(method)} <a href="#{identity}">{_path(path)}</a></h3>
<p class="summary">{_inline(operation["summary"])}</p>
{_text(operation.get("description", ""))}
{_parameters(operation["parameters"])}
{_body(body, {each["name"] for each in operation["parameters"]})}
<h4>Answers</h4>
{"".join(_answer(status, answer) for status, answer in operation["responses"].items())}
<h4>Try it</h4>
<pre class="curl"><code>{escape(_curl(base_url + path, method, body))}</code></pre>
</article>
"""


def _path(path: str) -> str:
    return re.sub(r"(\{\w+\})", r"<em>\1</em>", escape(path))


def _parameters(parameters: Iterable[Document]) -> str:
    rows = "".join(
        _row(each["name"], each["schema"], each.get("description", ""), each.get("required", False), each["in"])
        for each in parameters
    )
    return f"<h4>Parameters</h4><table>{rows}</table>" if rows else ""


def _row(name: str, schema: Document, description: str, required: bool, place: str = "") -> str:
    notes = [place] if place else []
    notes += ["required"] if required else []
    default = ""
    if "default" in schema:
        default = f'<span class="default">, default {escape(json.dumps(schema["default"]))}</span>'
    where = f" <small>{escape(', '.join(notes))}</small>" if notes else ""
    return (
        f'<tr><th scope="row"><code>{escape(name)}</code>{where}</th>'
        f'<td><span class="type">{_type(schema)}</span>{default}<br>{_inline(description)}</td></tr>'
    )


def _body(content: Mapping[str, Document], elsewhere: Set[str]) -> str:
    if not content:
        return ""
    plain = [media for media, described in content.items() if "schema" not in described]
    parts = []
    for media, described in content.items():
        if "schema" in described:
            fields = _fields(described["schema"], elsewhere)
            parts.append(f"<details open><summary>{escape(media)}</summary>{fields}</details>")
    if plain:
        media = ", ".join(f"<code>{escape(each)}</code>" for each in plain)
        parts.append(f"<details open><summary>The image itself</summary><p>{media}</p></details>")
    return f"<h4>Body</h4>{''.join(parts)}"


def _fields(schema: Document, elsewhere: Set[str] = frozenset()) -> str:
    """A table of the fields; those that are described `elsewhere` as parameters are not told twice."""
    required = set(schema.get("required", ()))
    one_of = [name for option in schema.get("anyOf", ()) for name in option.get("required", ())]
    rows = "".join(
        _row(name, field, field.get("description", ""), name in required)
        for name, field in schema.get("properties", {}).items()
        if name not in elsewhere
    )
    names = ", ".join(f"<code>{escape(name)}</code>" for name in one_of)
    note = f"<p>One of {names} is required.</p>" if one_of else ""
    if not elsewhere.isdisjoint(schema.get("properties", {})):
        note += "<p>The parameters of the query can stand here as well.</p>"
    return f"{note}<table>{rows}</table>"


def _answer(status: str, answer: Document) -> str:
    content = answer.get("content", {})
    media = ", ".join(
        f"<code>{escape(name)}</code> {_type(each['schema'])}" for name, each in content.items() if "schema" in each
    )
    shown = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption><pre><code>{escape(_json(example['value']))}</code></pre></figure>"
        for each in content.values()
        for name, example in each.get("examples", {}).items()
    )
    headers = "".join(
        _row(name, header["schema"], header["description"], header["required"])
        for name, header in answer.get("headers", {}).items()
    )
    good = "good" if status < "400" else "bad"
    return (
        f'<details class="answer {good}"{" open" if shown and good == "good" else ""}>'
        f"<summary><b>{escape(status)}</b> {_inline(_first_line(answer['description']))}</summary>"
        f"{_text(answer['description']) if good == 'bad' else ''}"
        f"<p>{media}</p>{shown}"
        f"<details><summary>Headers</summary><table>{headers}</table></details></details>"
    )


def _first_line(description: str) -> str:
    codes = re.findall(r"^- (`\w+`)", description, re.MULTILINE)
    return ", ".join(codes) if description.startswith("- ") else description.partition("\n")[0]


def _errors(errors: Iterable[type[GatewayError]]) -> str:
    rows = "".join(
        f'<tr id="error-{error.code}"><td class="status">{error.status}</td>'
        f'<th scope="row"><code>{error.code}</code></th><td>{_inline(" ".join((error.__doc__ or "").split()))}'
        f"{'<br><small>the end of a task</small>' if issubclass(error, TaskFailed) else ''}</td></tr>"
        for error in errors
    )
    return f"<table>{rows}</table>"


def _schema(name: str, schema: Document) -> str:
    return (
        f'<article id="schema-{escape(name)}"><h3><a href="#schema-{escape(name)}">{escape(name)}</a></h3>'
        f"{_text(schema.get('description', ''))}{_fields(schema)}</article>"
    )


def _type(schema: Document) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for key in ("oneOf", "anyOf"):
        if key in schema and "properties" not in schema:
            return " or ".join(_type(option) for option in schema[key])
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = escape(str(schema.get("type", "")))
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {', '.join(map(_type, schema['prefixItems']))}"
    if kind == "array":
        kind = f"list of {_type(schema.get('items', {}))}"
    elif "additionalProperties" in schema and isinstance(schema["additionalProperties"], Mapping):
        kind = f"map to {_type(schema['additionalProperties'])}"
    elif schema.get("format") == "binary":
        kind = "bytes"
    elif schema.get("contentEncoding"):
        kind = escape(schema["contentEncoding"])
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return ", ".join([kind, *map(escape, limits)]) if kind else ", ".join(map(escape, limits))


def _curl(url: str, method: str, body: Mapping[str, Document]) -> str:
    options = "" if method == "get" else f" -X {method.upper()}" if method != "post" or not body else ""
    if body:
        options += " -F image=@photo.jpg"
    return f"curl -s{options} '{url}'"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _text(text: str) -> str:
    """Paragraphs and lists of lines that begin with a dash."""
    blocks = []
    for block in filter(None, text.split("\n\n")):
        lines = block.splitlines()
        if all(line.startswith("- ") for line in lines):
            blocks.append("<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>")
        else:
            blocks.append(f"<p>{_inline(block)}</p>")
    return "".join(blocks)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
