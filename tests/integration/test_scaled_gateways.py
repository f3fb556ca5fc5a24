"""The proxy of docker-compose.scale.yml, with its own configuration, in front of real gateways that come and go."""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from local.ports import free_ports
from local.stack import ask
from tests.integration.test_triton_pool import frozen
from tests.support import tiny
from tests.support.gateway import Gateway
from tests.support.names import name_server
from tests.support.pictures import encoded
from tests.support.stack import ROOT, Stack, Triton, running, running_program, running_stack, running_triton, wait_until

PICTURE = encoded(320, 240)
HOST = "detect.example.org"
SECONDS = 30


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "time is up"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("models")
    tiny.write(repository, "tiny", tiny.finder())
    with running_triton(repository, tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(triton, tmp_path_factory.mktemp("stack"), "tiny", workers=1) as stack:
        yield stack


class Scaled:
    """Gateways at 127.0.0.2, 127.0.0.3, … behind the proxy; `addresses` is what the name `gateway` has."""

    def __init__(self, stack: Stack, folder: Path, exits: ExitStack) -> None:
        self.addresses: list[str] = []
        self._stack, self.folder, self._exits = stack, folder, exits
        self.port, self.gateway_port, alive = free_ports(3)
        dns = exits.enter_context(name_server(self.addresses))
        text = (ROOT / "docker" / "haproxy.cfg").read_text()
        for old, new in (
            ("bind :5000", f"bind 127.0.0.1:{self.port}"),
            ("gateway:5000", f"gateway:{self.gateway_port}"),
            ("127.0.0.11:53", f"127.0.0.1:{dns}"),
            ("bind 127.0.0.1:8404", f"bind 127.0.0.1:{alive}"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / "haproxy.cfg").write_text(text)
        settings = {"MAX_REQUEST_BYTES": "50000000", "TRUSTED_HOSTS": f"{HOST},localhost"}
        log = folder / "haproxy.log"
        process = exits.enter_context(running_program(["haproxy", "-f", str(folder / "haproxy.cfg")], settings, log))
        wait_until(lambda: ask("127.0.0.1", alive, "/")[0] in (200, 503), process, log)

    def add(self, **settings: str) -> Gateway:
        address = f"127.0.0.{len(self.addresses) + 2}"
        own = {"HOST": address, "PORT": str(self.gateway_port), "TRITON_URL": self._stack.triton_url, "MODEL": "tiny"}
        own |= {"REDIS_URL": self._stack.redis_url, "METRICS_PORT": "0", "TRUSTED_PROXIES": "*", "TRUSTED_HOSTS": HOST}
        own |= {"PUBLISHED_ON": "127.0.0.1", "LOG_FORMAT": "json"}
        log = self.folder / f"{address}.log"
        process = self._exits.enter_context(running("gateway.web", own | settings, log))
        wait_until(lambda: ask(address, self.gateway_port, "/livez")[0] > 0, process, log)
        self.addresses.append(address)
        return Gateway(self.gateway_port, process, log)

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"Host": HOST}, timeout=90)

    def ready(self) -> bool:
        with self.client() as client:
            return client.get("/readyz").status_code == 200


@contextmanager
def scaled(stack: Stack, folder: Path) -> Iterator[Scaled]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    with ExitStack() as exits:
        yield Scaled(stack, folder, exits)


@pytest.fixture(scope="module")
def pair(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    with scaled(stack, tmp_path_factory.mktemp("pair")) as found:
        found.add()
        found.add()
        until(found.ready)
        yield found


@pytest.fixture
def http(pair: Scaled) -> Iterator[httpx2.Client]:
    with pair.client() as client:
        yield client


def test_an_answer_that_is_waited_for_passes(http: httpx2.Client) -> None:
    for _ in range(10):
        body = http.post("/predict", params={"wait": 60}, content=PICTURE).json()
        assert body["status"] == "SUCCESS", body


def test_events_pass_as_they_come(triton: Triton, http: httpx2.Client) -> None:
    with frozen(triton):
        task_id = http.post("/predict", content=PICTURE).json()["task_id"]
        with http.stream("GET", f"/result/{task_id}/events") as answer:
            chunks = answer.iter_text()
            first = next(chunks)
            assert answer.status_code == 200 and "succeeded" not in first, "what is so far comes at once"
            os.kill(triton.pid, signal.SIGCONT)
            assert "succeeded" in "".join(chunks)


def test_a_large_body_passes_and_one_too_large_is_refused_with_a_problem(http: httpx2.Client) -> None:
    padded = PICTURE + bytes(4_900_000)
    files = [("image", (f"{number}.jpg", padded)) for number in range(10)]
    answer = http.post("/predict", files=files)
    assert answer.status_code == 202, answer.text
    for _ in range(3):
        refused = http.post("/predict", content=bytes(60_000_000))
        assert (refused.status_code, refused.json()["code"]) == (413, "image_too_large")
        assert refused.headers["content-type"] == "application/problem+json"


def test_the_log_has_what_failed_and_neither_each_connection_nor_a_query(stack: Stack, tmp_path: Path) -> None:
    with scaled(stack, tmp_path) as pair, pair.client() as client:
        gateway = pair.add()
        until(pair.ready)
        for _ in range(3):
            assert client.post("/predict", content=PICTURE).status_code == 202
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.wait(SECONDS)
        until(lambda: client.get("/models", params={"secret": "no"}).status_code == 503)
        until(lambda: '"GET /models"' in (pair.folder / "haproxy.log").read_text())  # it answers before it writes
        log = (pair.folder / "haproxy.log").read_text()
    assert "503" in log and '"GET /models"' in log
    assert "Connect from" not in log and "secret" not in log and "/predict" not in log


def test_the_client_is_who_connects_whatever_it_says(stack: Stack, tmp_path: Path) -> None:
    with scaled(stack, tmp_path) as pair, pair.client() as client:
        pair.add(RATE_LIMIT="5/hour")
        until(pair.ready)
        forged = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(10)]
        codes = [client.post("/predict", headers=each, content=PICTURE).status_code for each in forged]
        assert codes[:5] == [202] * 5 and set(codes[6:]) == {429}, codes
        elsewhere = httpx2.HTTPTransport(local_address="127.0.0.9")
        with httpx2.Client(base_url=client.base_url, headers={"Host": HOST}, transport=elsewhere) as other:
            assert other.post("/predict", content=PICTURE).status_code == 202


class Asking:
    """Uploads and waits again and again; `codes` has what came."""

    def __init__(self, pair: Scaled) -> None:
        self.codes: Counter[object] = Counter()
        self._pair, self._stop = pair, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def some(self, more: int = 40) -> None:
        before = self.codes.total()
        until(lambda: self.codes.total() >= before + more)

    def _run(self) -> None:
        with self._pair.client() as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", params={"wait": 30}, content=PICTURE)
                    code = answer.json().get("code", "") if answer.status_code != 200 else ""
                    self.codes[f"{answer.status_code} {code}".strip()] += 1
                except httpx2.HTTPError as error:
                    self.codes[repr(error)] += 1


def handled(pair: Scaled, address: str) -> int:
    return (pair.folder / f"{address}.log").read_text().count("POST /predict")


def test_gateways_come_hang_and_go_and_nothing_is_lost(stack: Stack, tmp_path: Path) -> None:
    with scaled(stack, tmp_path) as pair:
        first = pair.add()
        until(pair.ready)
        with Asking(pair) as asking:
            asking.some()
            second = pair.add()
            until(lambda: handled(pair, "127.0.0.3") > 20)
            os.kill(first.process.pid, signal.SIGSTOP)
            time.sleep(4)
            with pair.client() as client:
                begun = time.monotonic()
                assert client.post("/predict", params={"wait": 30}, content=PICTURE).status_code == 200
                assert time.monotonic() - begun < 5, "one that hangs is asked for nothing"
            os.kill(first.process.pid, signal.SIGCONT)
            asking.some()
            assert set(asking.codes) == {"200"}, asking.codes
            first.process.send_signal(signal.SIGTERM)
            first.process.wait(SECONDS)
            pair.addresses.remove("127.0.0.2")
            asking.some()
        # A stop is no failure: at most a wait ends early, with 202.
        assert set(asking.codes) <= {"200", "202"}, asking.codes
        pair.addresses.insert(0, "127.0.0.2")
        second.process.send_signal(signal.SIGTERM)
        second.process.wait(SECONDS)
        with pair.client() as client:
            until(lambda: client.get("/models").status_code == 503)
            answer = client.get("/models")
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("service_unavailable", "5")
