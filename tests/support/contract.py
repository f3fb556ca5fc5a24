"""Holds every answer of a client against /openapi.json: status, media type, headers, body."""

import re
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from gateway.server.headers import SECURITY_HEADERS

# What HTTP itself adds, and what is documented once for all paths.
PLUMBING = {"allow", "connection", "content-length", "content-type", "date", "transfer-encoding"}
SECURITY = {name.lower() for name in SECURITY_HEADERS}
ANYWHERE = {404: "not_found", 405: "method_not_allowed"}


class Contract:
    """`check` raises AssertionError when an answer is not as the document says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._paths = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), operations)
            for path, operations in document["paths"].items()
        ]

    def check(self, answer: httpx2.Response) -> None:
        request = answer.request
        where = f"{request.method} {request.url.path} → {answer.status_code}"
        operation = self._operation(request.method, request.url.path)
        if operation is None:
            answer.read()
            assert ANYWHERE.get(answer.status_code) == answer.json()["code"], f"{where} is not documented"
            return
        documented = operation["responses"].get(str(answer.status_code))
        assert documented, f"{where} is not documented"
        self._check_headers(answer, documented, where)
        self._check_body(answer, documented.get("content", {}), where)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, operations in self._paths:
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = operations.get("get" if method == "HEAD" else method.lower())
                return found
        return None

    def _check_headers(self, answer: httpx2.Response, documented: dict[str, Any], where: str) -> None:
        headers = {name.lower(): header for name, header in documented["headers"].items()}
        unknown = set(answer.headers) - set(headers) - PLUMBING - SECURITY
        assert not unknown, f"{where} has undocumented headers: {unknown}"
        assert set(answer.headers) >= SECURITY, f"{where} lacks security headers"
        missing = {name for name, header in headers.items() if header["required"]} - set(answer.headers)
        assert not missing, f"{where} lacks headers: {missing}"

    def _check_body(self, answer: httpx2.Response, content: dict[str, Any], where: str) -> None:
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if not content:
            assert not answer.read(), f"{where} has an undocumented body"
            return
        assert media_type in content, f"{where} is of the undocumented type {media_type}"
        if media_type.endswith("json") and answer.request.method != "HEAD":
            answer.read()
            schema = {**content[media_type]["schema"], "components": self._document["components"]}
            errors = [error.message for error in Draft202012Validator(schema).iter_errors(answer.json())]
            assert not errors, f"{where} is not as documented: {errors}\n{answer.text}"
