"""The document agrees with the code; that the answers agree with it, every test in this folder checks by the way."""

import ast
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Mount, Route

import gateway
from gateway.errors import GatewayError, error_classes
from gateway.openapi import document
from gateway.settings import Settings
from gateway.web import routes
from gateway.web.app import create_app
from gateway.web.checks import refusals

GATEWAY = Path(gateway.__file__).parent
DOCUMENT = document.document(routes.operations, refusals)
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def test_the_document_is_openapi_3_1(client: httpx2.Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip, deflate, br", "gzip"), ("GZIP;q=0.1", "gzip"), ("*", "gzip"), ("gzip;q=0", None), ("identity", None)],
)
def test_the_document_is_compressed_for_who_takes_that(
    client: httpx2.Client, accepted: str, encoding: str | None
) -> None:
    answer = client.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert answer.json() == DOCUMENT, "the client unpacks it"
    assert (answer.headers.get("content-encoding"), answer.headers["vary"]) == (encoding, "Accept-Encoding")
    full = len(client.get("/openapi.json", headers={"Accept-Encoding": "identity"}).content)
    assert (int(answer.headers["content-length"]) < full / 4) == (encoding == "gzip")


def test_routes_and_document_are_the_same() -> None:
    served = set()
    for route in create_app(Settings()).routes:
        if isinstance(route, Mount) and route.path == "/static":
            continue  # the files of the pages
        assert isinstance(route, Route), f"{route} is not made from the table of operations"
        served |= {(route.path, method) for method in route.methods or () if method != "HEAD"}
    assert served == {(path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item}


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS])
def test_an_operation_is_described_whole(path: str, method: str) -> None:
    described = operation(path, method)
    assert described["summary"] and described["tags"]
    in_path = {each["name"] for each in described["parameters"] if each["in"] == "path"}
    assert in_path == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
    assert all(each["description"] for each in described["parameters"])
    assert all(response["description"] for response in described["responses"].values())


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS])
def test_examples_are_as_the_document_says(path: str, method: str) -> None:
    for status, response in operation(path, method)["responses"].items():
        for content in response.get("content", {}).values():
            schema = {**content.get("schema", {}), "components": DOCUMENT["components"]}
            for name, example in content.get("examples", {}).items():
                errors = [error.message for error in Draft202012Validator(schema).iter_errors(example["value"])]
                assert not errors, f"{status} {name}"


def test_operation_ids_are_unique() -> None:
    identities = [each["operationId"] for item in DOCUMENT["paths"].values() for each in item.values()]
    assert len(identities) == len(set(identities))


def test_every_error_is_in_the_document() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes)), "a code means one thing"
    assert DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == sorted(codes)
    told = {code for path, method in OPERATIONS for code in codes_of(operation(path, method))}
    ends = DOCUMENT["components"]["schemas"]["TaskView"]["properties"]["error"]["allOf"][1]["properties"]["code"][
        "enum"
    ]
    assert told | set(ends) | {"method_not_allowed"} == set(codes)


def codes_of(described: dict[str, Any]) -> set[str]:
    codes: set[str] = set()
    for response in described["responses"].values():
        content = response.get("content", {}).get("application/problem+json")
        if content:
            codes |= set(content["schema"]["allOf"][1]["properties"]["code"]["enum"])
    return codes


def test_an_error_stands_under_its_own_status() -> None:
    status_of = {error.code: error.status for error in error_classes()}
    for path, method in OPERATIONS:
        for status, response in operation(path, method)["responses"].items():
            for code in codes_of({"responses": {status: response}}):
                assert status_of[code] == int(status)


def asked_for(kind: str) -> set[str]:
    """Names that the code reads as `request.<kind>.get(name)`, `request.<kind>[name]` or `name in request.<kind>`."""
    names = set()
    for module in GATEWAY.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                names |= read_from(kind, node.func.value, node.args[0])
            elif isinstance(node, ast.Subscript):
                names |= read_from(kind, node.value, node.slice)
            elif isinstance(node, ast.Compare):
                names |= read_from(kind, node.comparators[0], node.left)
    return names


def read_from(kind: str, source: ast.expr, name: ast.expr) -> set[str]:
    if isinstance(source, ast.Attribute) and source.attr == kind and isinstance(name, ast.Constant):
        return {str(name.value).lower()}
    return set()


def test_headers_that_the_code_reads_are_documented() -> None:
    documented = {
        each["name"].lower()
        for item in DOCUMENT["paths"].values()
        for described in item.values()
        for each in described["parameters"]
        if each["in"] == "header"
    }
    # A document names these in other ways: requestBody, the media types of the responses, servers, security.
    implied = {"content-type", "content-encoding", "content-length", "accept", "accept-encoding", "host", "origin"}
    implied |= {
        "sec-fetch-site",
        "authorization",
        "x-api-key",
        "content-transfer-encoding",
    }  # the last one of a part of the body
    assert asked_for("headers"), "the search finds nothing: the code reads them in another way now"
    assert asked_for("headers") - implied <= documented


def test_parameters_are_read_through_the_types_that_document_them() -> None:
    assert asked_for("query_params") == set()


def test_error_classes_are_found_below_a_base() -> None:
    assert all(issubclass(each, GatewayError) for each in error_classes())
    assert [each.status for each in error_classes()] == sorted(each.status for each in error_classes())


def test_the_handbook_names_every_path() -> None:
    handbook = (GATEWAY.parent / "docs" / "api.md").read_text()
    named = set(re.findall(r"/[a-z0-9_/.<>-]*", handbook))
    told = {path.replace("{name}", "<model>").replace("{", "<").replace("}", ">") for path in DOCUMENT["paths"]}
    assert told - named - {"/models/<model>"} == set()


def test_the_page_shows_the_address_it_is_asked_at_and_is_rendered_once(client: httpx2.Client) -> None:
    client.get("/docs")
    begun = time.process_time()
    for name in ("one.example", "two.example"):
        text = client.get("/docs", headers={"Host": name}).text
        assert f"http://{name}/predict" in text and "address.invalid" not in text
    assert time.process_time() - begun < 0.1
