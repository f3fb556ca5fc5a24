"""Password, TLS, Sentinels and a primary that was demoted, with real servers."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import redis
import trustme

from gateway.queue.connection import WorkerRedis
from gateway.redis_connections import connect, connect_async
from gateway.settings import Settings
from local.ports import free_ports
from tests.api.clients import client_of
from tests.api.conftest import NO_TRITON
from tests.api.processes import worker
from tests.api.receiving import SECRET
from tests.api.serving import working
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded
from tests.support.redis_servers import (
    SERVICE,
    Sentinels,
    Server,
    redis_with_tls,
    running_redis,
    running_replica,
    running_sentinels,
    until,
)
from tests.support.stack import running

PICTURE = {"image": ("a.jpg", encoded(64, 48))}
AGAIN_SECONDS = 15
SILENT_SECONDS = 10  # by itself redis-py asks a silent one for 20


def settings_of(url: str) -> Settings:
    return Settings(redis_url=url, triton_url=NO_TRITON, rate_limit="100000/minute")


def predict(client: httpx2.Client) -> str:
    """The state of a task that was waited for; the status where it was not accepted."""
    answer = client.post("/predict", files=PICTURE, params={"wait": 10})
    return str(answer.json()["status"])


def predict_within(client: httpx2.Client, seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while (outcome := predict(client)) != "SUCCESS":
        assert time.monotonic() < give_up_at, outcome
        time.sleep(0.1)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What the log says is missing."""
    return next(each for each in caplog.messages if each.startswith("not ready"))


def serve(url: str) -> None:
    """One task goes through gateway and worker."""
    settings = settings_of(url)
    with client_of(settings) as client, working(settings, FakeTriton()):
        assert predict(client) == "SUCCESS"


@pytest.fixture
def with_password(tmp_path: Path) -> Iterator[Server]:
    with running_redis(tmp_path, requirepass="hush") as server:
        yield server


def test_a_password_is_used(with_password: Server) -> None:
    serve(f"redis://:hush@127.0.0.1:{with_password.port}/0")


@pytest.mark.parametrize("credentials", ["", ":wrong@"], ids=["none", "wrong"])
def test_a_password_that_does_not_fit_is_a_line_without_it(with_password: Server, credentials: str) -> None:
    with client_of(settings_of(f"redis://{credentials}127.0.0.1:{with_password.port}/0")) as client:
        missing = client.get("/status").json()["missing"]["redis"]
        assert missing.startswith("does not answer") and "wrong@" not in missing
        assert client.post("/predict", files=PICTURE).status_code == 503


@pytest.fixture
def with_tls(tmp_path: Path) -> Iterator[tuple[Server, Callable[[trustme.CA], str]]]:
    """A server that takes TLS only, and a URL that trusts an authority."""
    authority, program, (free,) = trustme.CA(), redis_with_tls(), free_ports(1)
    certificate = authority.issue_cert("127.0.0.1")
    files = {"ca": authority.cert_pem, "cert": certificate.cert_chain_pems[0], "key": certificate.private_key_pem}
    for name, blob in files.items():
        blob.write_to_path(tmp_path / f"{name}.pem")
    options = {
        "tls_port": str(free),
        "tls_cert_file": str(tmp_path / "cert.pem"),
        "tls_key_file": str(tmp_path / "key.pem"),
        "tls_ca_cert_file": str(tmp_path / "ca.pem"),
        "tls_auth_clients": "no",
    }

    def url(trusted: trustme.CA | None = None) -> str:
        path = tmp_path / "trusted.pem"
        (trusted or authority).cert_pem.write_to_path(path)
        return f"rediss://127.0.0.1:{free}/0?ssl_ca_certs={path}"

    with running_redis(tmp_path, program=program, port="0", **options) as server:
        with redis.Redis.from_url(url()) as connection:
            until(lambda: bool(connection.ping()), server.log)
        yield server, url


def test_tls_is_used(with_tls: tuple[Server, Callable[..., str]]) -> None:
    serve(with_tls[1]())


def test_a_certificate_that_does_not_fit_is_one_line(
    with_tls: tuple[Server, Callable[..., str]], caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(settings_of(with_tls[1](trustme.CA()))) as client:
        assert client.get("/status").json()["missing"]["redis"] == "does not answer"  # strangers get no address
        assert "certificate verify failed" in logged(caplog)
        assert client.post("/predict", files=PICTURE).status_code == 503


def test_a_name_that_resolves_to_nothing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with client_of(settings_of("redis://nowhere.invalid:6379/0")) as client:
        assert client.get("/status").json()["missing"]["redis"] == "does not answer"
        assert "nowhere.invalid" in logged(caplog)


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with running_sentinels(tmp_path) as servers:
        yield servers


def test_a_sentinel_that_names_no_primary_is_one_line(sentinels: Sentinels, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(settings_of(sentinels.url.replace(SERVICE, "other"))) as client:
        assert client.get("/status").json()["missing"]["redis"] == "does not answer"
        assert "no Sentinel names a primary for 'other'; is that its name" in logged(caplog)
        assert client.post("/predict", files=PICTURE).status_code == 503


def test_a_sentinel_that_is_silent_holds_nobody_up_for_long(sentinels: Sentinels) -> None:
    async def ping(url: str) -> bool:
        async with connect_async(url) as connection:
            return bool(await connection.ping())

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never answers
        url = sentinels.url.replace("//", f"//127.0.0.1:{silent.getsockname()[1]},")
        begun = time.monotonic()
        with connect(url, redis.Redis) as connection:
            assert connection.ping()
        assert asyncio.run(ping(url))
    assert time.monotonic() - begun < 2 * SILENT_SECONDS


@pytest.fixture(params=["worker", "webhooks"])
def says(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """What a worker or a deliverer says, in one line, of the Redis that a URL names; it does not end by it."""
    own = {"CALLBACKS": "true", "WEBHOOK_SECRET": SECRET, "WORKER_METRICS_PORT": "0", "TRITON_URL": NO_TRITON}
    log = tmp_path / f"{request.param}.log"

    def said(url: str) -> str:
        with running(f"gateway.{request.param}", {**own, "REDIS_URL": url}, log) as process:
            until(lambda: "Redis" in log.read_text(), log)
            time.sleep(2.5)  # it tries again
            assert process.poll() is None
            (line,) = log.read_text().splitlines()
        return line

    return said


def test_workers_and_deliverers_say_what_is_wrong_with_a_name(says: Callable[[str], str]) -> None:
    assert "connecting to nowhere.invalid:6379. Name or service not known" in says("redis://nowhere.invalid:6379/0")


def test_workers_and_deliverers_say_what_is_wrong_with_a_certificate(
    says: Callable[[str], str], with_tls: tuple[Server, Callable[..., str]]
) -> None:
    assert "certificate verify failed" in says(with_tls[1](trustme.CA()))


def test_workers_and_deliverers_say_what_is_wrong_with_a_sentinel(
    says: Callable[[str], str], sentinels: Sentinels
) -> None:
    assert says(sentinels.url.replace(SERVICE, "other")).endswith(
        "no Sentinel names a primary for 'other'; is that its name in `sentinel monitor`, and is it up?"
    )


def test_workers_and_deliverers_say_which_sentinels_they_ask(says: Callable[[str], str]) -> None:
    line = says("redis+sentinel://127.0.0.1:1,localhost:2/queue")
    assert line.endswith("no Sentinel names a primary for 'queue': not all of 127.0.0.1:1, localhost:2 answer")


def test_a_worker_that_started_before_its_primary_was_named_works(sentinels: Sentinels, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with client_of(settings_of(sentinels.primary.url)) as client, sentinels.ask() as control:
        place = client.post("/predict", files=PICTURE).headers["location"]
        with worker(sentinels.url.replace(SERVICE, "late"), log, {}):
            until(lambda: "no Sentinel names a primary for 'late'" in log.read_text(), log)
            control.sentinel_monitor("late", "127.0.0.1", sentinels.primary.port, 1)
            until(lambda: client.get(place).json()["status"] == "SUCCESS", log, 60)


def test_sentinels_name_the_primary_also_after_a_failover(sentinels: Sentinels) -> None:
    settings = settings_of(sentinels.url)
    with client_of(settings) as client, working(settings, FakeTriton()):
        assert predict(client) == "SUCCESS"
        sentinels.fail_over()
        predict_within(client, AGAIN_SECONDS)
        assert "redis" not in client.get("/status").json()["missing"]


def test_connections_to_a_demoted_primary_are_made_anew(tmp_path: Path) -> None:
    """Without Sentinels: the name stays, what is behind it is a replica for a while."""
    with running_redis(tmp_path) as first, running_replica(tmp_path, first) as second, first.connect() as control:
        settings = settings_of(first.url)
        with client_of(settings) as client, working(settings, FakeTriton()):
            assert predict(client) == "SUCCESS"
            with second.connect() as promoted:
                promoted.replicaof("NO", "ONE")
            control.replicaof("127.0.0.1", str(second.port))
            assert predict(client) == "503"
            time.sleep(1.1)  # longer than /status keeps an answer
            missing = client.get("/status").json()["missing"]
            assert "worker" not in missing and missing["redis"].startswith("is a read-only replica")
            control.replicaof("NO", "ONE")
            predict_within(client, AGAIN_SECONDS)


def test_an_upload_whose_answer_is_lost_is_one_task_when_it_is_sent_again(tmp_path: Path) -> None:
    once = {"Idempotency-Key": "once"}
    with running_redis(tmp_path) as server, server.connect() as control:
        with client_of(Settings(redis_url=server.url, triton_url=NO_TRITON)) as client:
            assert client.post("/predict", files=PICTURE).status_code == 202
            os.kill(server.process.pid, signal.SIGSTOP)  # it has the upload, and answers too late
            try:
                lost = client.post("/predict", headers=once, files=PICTURE)
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert (lost.status_code, lost.json()["code"], lost.headers["retry-after"]) == (
                503,
                "service_unavailable",
                "5",
            )
            assert "with the same Idempotency-Key" in lost.json()["detail"]
            until(lambda: control.hlen("yolo:open") == 2, server.log)
            assert client.post("/predict", headers=once, files=PICTURE).status_code == 202
            assert control.hlen("yolo:open") == 2


@pytest.mark.parametrize("script", [False, True], ids=["command", "script"])
def test_a_refused_write_closes_its_connection(tmp_path: Path, script: bool) -> None:
    with running_redis(tmp_path) as first, running_replica(tmp_path, first) as second:
        with connect(second.url, WorkerRedis) as connection:
            used = connection.client_id()
            with pytest.raises(redis.ConnectionError, match="not the primary any more"):
                if script:
                    connection.eval("return redis.call('set', KEYS[1], 1)", 1, "a")
                else:
                    connection.set("a", 1)
            assert connection.client_id() != used
