"""The service as commands ask it: one HTTP request each, with plain errors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from yolo_gateway.cli.text import shown
from yolo_gateway.connection import from_environment
from yolo_gateway.messages import Events, seconds_of

WAIT_SECONDS = 60  # the longest that the service waits in one request
_MARGIN_SECONDS = 30
_CONNECT_SECONDS = 10


class NoAnswer(Exception):
    """Nothing came back, or what came back is cut; the message says why."""


class Refused(Exception):
    """An answer that is an error; `code` is for programs, `detail` for people."""

    def __init__(self, status: int, code: str, detail: str, retry_after: float | None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after


class Service:
    """A connection pool to one service; may be used by several threads. Raises InvalidInput."""

    def __init__(self, server: str, key: str | None, connections: int = 4) -> None:
        self.server = server
        with from_environment():
            self._http = httpx.Client(
                base_url=server,
                headers={"User-Agent": "yolo-gateway", **({"Authorization": f"Bearer {key}"} if key else {})},
                timeout=httpx.Timeout(WAIT_SECONDS + _MARGIN_SECONDS, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(
                    max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=2
                ),
            )

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON at a path. Raises NoAnswer, Refused."""
        return _json(self._ask("GET", path, params=params))

    def answer(self, path: str) -> httpx.Response:
        """Whatever answers at a path, an error or not. Raises NoAnswer."""
        with _plain_errors():
            return self._http.get(path)

    def predict(self, data: bytes, choices: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The task of one image, finished if it does within WAIT_SECONDS. Raises NoAnswer, Refused."""
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": key}
        params = {**choices, "wait": WAIT_SECONDS}
        return _json(self._ask("POST", "/predict", params=params, content=data, headers=headers))

    def predict_url(self, url: str, choices: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The same of an image that the service fetches."""
        params = {**choices, "wait": WAIT_SECONDS}
        return _json(self._ask("POST", "/predict", params=params, json={"url": url}, headers={"Idempotency-Key": key}))

    def wait(self, task_id: str) -> dict[str, Any]:
        """The task once it has finished, or as it is after WAIT_SECONDS. Raises NoAnswer, Refused."""
        return self.get(f"/result/{task_id}", {"wait": WAIT_SECONDS})

    def picture(self, task_id: str) -> bytes:
        """The annotated picture, a JPEG. Raises NoAnswer, Refused."""
        return self._ask("GET", f"/result/{task_id}/image", headers={"Accept": "image/jpeg"}).content

    def changes(self, task_id: str) -> Iterator[dict[str, Any]]:
        """The task now and at each change of its state, until it has finished. Raises NoAnswer, Refused."""
        with _plain_errors(self.server), self._http.stream("GET", f"/result/{task_id}/events") as answer:
            if answer.is_error:
                answer.read()
                raise _refused(answer)
            events = Events()
            for line in answer.iter_lines():
                yield from map(json.loads, events.feed(line))

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        with _plain_errors(self.server):
            answer = self._http.request(method, path, **options)
        if not answer.is_success:
            raise _refused(answer)
        return answer


@contextmanager
def _plain_errors(server: str = "") -> Iterator[None]:
    """`server` is named where the message goes to people as it is."""
    where = f"{server}: " if server else ""
    try:
        yield
    except httpx.TimeoutException as error:
        raise NoAnswer(f"{where}no answer in time ({type(error).__name__})") from error
    except (httpx.HTTPError, OSError) as error:
        raise NoAnswer(where + (shown(str(error)) or type(error).__name__)) from error


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError as error:
        raise _strange(answer) from error
    if not isinstance(value, dict):
        raise _strange(answer)
    return value


def _strange(answer: httpx.Response) -> Refused:
    return Refused(answer.status_code, "no_gateway", "what answers there is no YOLOv5 gateway", None)


def _refused(answer: httpx.Response) -> Refused:
    """Problem details where there are any: a proxy answers otherwise."""
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = f"http_{answer.status_code}", f"HTTP {answer.status_code} {answer.reason_phrase}"
    retry_after = seconds_of(answer.headers.get("retry-after", ""), answer.headers.get("date", ""))
    return Refused(answer.status_code, code, shown(detail), retry_after)
