"""Hosts, origins and headers."""

import threading
import time
from collections.abc import Iterator

import httpx2
import msgspec
import pytest
from starlette.testclient import TestClient

from gateway.server.headers import SECURITY_HEADERS
from gateway.settings import Settings
from gateway.web.app import create_app
from tests.api.clients import URL, client_of
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/livez", 200), ("GET", "/nothing", 404), ("PUT", "/predict", 405), ("POST", "/predict", 400)],
)
def test_every_answer_has_the_security_headers(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "server" not in answer.headers


def test_a_defect_has_them_too(settings: Settings) -> None:
    app = create_app(settings)
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        client.app_state["services"] = None
        answer = client.get("/models")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


@pytest.mark.parametrize(
    ("host", "settings_host", "trusted", "status"),
    [
        ("localhost", "127.0.0.1", None, 404),
        ("127.0.0.1:5000", "127.0.0.1", None, 404),
        ("[::1]:5000", "127.0.0.1", None, 404),
        ("LOCALHOST:1", "127.0.0.1", None, 404),
        ("127.0.0.2:5000", "127.0.0.2", None, 404),
        ("127.0.0.2:5000", "127.0.0.1", None, 421),
        ("evil.example", "127.0.0.1", None, 421),
        ("localhost.evil.example", "127.0.0.1", None, 421),
        ("[", "127.0.0.1", None, 421),
        ("any.example", "0.0.0.0", None, 404),
        ("yolo.example:443", "0.0.0.0", "yolo.example", 404),
        ("localhost", "0.0.0.0", "yolo.example", 421),
        ("a.yolo.example", "0.0.0.0", "*.yolo.example, localhost", 404),
        ("yolo.example", "0.0.0.0", "*.yolo.example, localhost", 421),
        ("any.example", "127.0.0.1", "*", 404),
    ],
)
def test_only_own_host_names_are_answered(
    settings: Settings, host: str, settings_host: str, trusted: str | None, status: int
) -> None:
    with client_of(msgspec.structs.replace(settings, host=settings_host, trusted_hosts=trusted)) as client:
        answer = client.get("/batches/none", headers={"Host": host})
        assert client.get("/livez", headers={"Host": host}).status_code == 200  # probes ask by address
    assert answer.status_code == status
    assert answer.json()["code"] == ("unknown_host" if status == 421 else "task_not_found")


def test_a_container_published_on_loopback_answers_to_its_names_only(settings: Settings) -> None:
    with client_of(msgspec.structs.replace(settings, host="0.0.0.0", published_on="127.0.0.1")) as client:
        assert client.get("/batches/none", headers={"Host": "localhost:5000"}).status_code == 404
        assert client.get("/batches/none", headers={"Host": "evil.example"}).status_code == 421


def test_several_host_headers_are_refused(client: httpx2.Client) -> None:
    answer = client.get("/result/none", headers=[("Host", "127.0.0.1"), ("Host", "example.org")])
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": "http://127.0.0.1:5000"}, 202),
        ({"Origin": "http://127.0.0.1:5000", "Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "none"}, 202),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_send_images(client: httpx2.Client, headers: dict[str, str], status: int) -> None:
    assert client.post("/predict", content=PICTURE, headers=headers).status_code == status


def test_without_cors_nothing_is_allowed(client: httpx2.Client) -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/predict", headers=ask).status_code == 405
    assert not [name for name in client.get("/livez", headers=ask).headers if name.startswith("access-control")]


@pytest.fixture
def shared(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(msgspec.structs.replace(settings, cors_origins="https://app.example")), URL) as client:
        yield client


def test_cors_is_for_the_configured_origins(shared: TestClient) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = shared.options("/predict", headers={"Origin": "https://app.example", **ask})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in allowed.headers
    refused = shared.options("/predict", headers={"Origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in refused.headers


def test_a_page_of_a_configured_origin_can_send_images(shared: TestClient) -> None:
    headers = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    answer = shared.post("/predict", content=PICTURE, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "https://app.example")
    assert shared.post("/predict", content=PICTURE, headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_stopping_gateway_says_so_and_goes_on_until_it_lets_go(settings: Settings) -> None:
    """What SIGTERM does, and what follows; see gateway.server.shutdown and tests/integration/test_shutdown.py."""
    app = create_app(settings)
    with TestClient(app, URL) as client:
        assert client.portal is not None
        place = client.post("/predict", content=PICTURE).headers["location"]
        answers: list[httpx2.Response] = []
        paths = [place + end for end in ("?wait=60", "/events")]
        waiting = [threading.Thread(target=lambda path=path: answers.append(client.get(path))) for path in paths]
        for thread in waiting:
            thread.start()
        time.sleep(0.5)
        client.portal.call(app.state.services.stopping.set)
        assert client.get("/readyz").json() == {"status": "not ready", "missing": {"gateway": "it stops"}}
        assert client.get("/status").json()["missing"].items() >= {"gateway": "it stops"}.items()
        assert client.get("/livez").status_code == 200
        accepted = client.post("/predict", content=PICTURE)
        assert (accepted.status_code, accepted.headers["connection"]) == (202, "close")
        assert answers == [], "who waits goes on to wait"

        client.portal.call(app.state.services.results.release)
        for thread in waiting:
            thread.join(20)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert all('"PENDING"' in answer.text for answer in answers)
        begun = time.monotonic()
        assert client.get(place, params={"wait": 60}).json()["status"] == "PENDING"
        assert time.monotonic() - begun < 20
