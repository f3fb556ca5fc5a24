"""Clients of applications with settings of their own, each answer held against /openapi.json."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from starlette.testclient import TestClient

from gateway.settings import Settings
from gateway.web.app import create_app
from tests.support.contract import Contract

URL = "http://127.0.0.1:5000"


@contextmanager
def client_of(settings: Settings, address: str = "127.0.0.1") -> Iterator[httpx2.Client]:
    """A client that comes from `address`."""
    app = create_app(settings)
    with TestClient(app, URL, raise_server_exceptions=False, client=(address, 50_000)) as client:
        client.event_hooks["response"] = [Contract(client.get("/openapi.json").json()).check]
        yield client


def status(client: httpx2.Client, task_id: str) -> str:
    """`PENDING`, `SUCCESS` or `FAILURE`."""
    return str(client.get(f"/result/{task_id}").json()["status"])
