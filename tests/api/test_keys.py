"""API keys: who is let in, and who sees which task."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
import redis

from gateway.openapi.operation import Operation
from gateway.security.api_keys import Keyring, load_keys, new_key
from gateway.security.exposure import check_exposure
from gateway.security.task_ids import is_owner, new_id
from gateway.settings import Settings, SettingsError, load
from gateway.web import routes
from gateway.webhooks.signing import secret_of
from tests.api.clients import client_of
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
ALICE, ALICE_LINE = new_key("alice")
ALICE_NEW, ALICE_NEW_LINE = new_key("alice")
BOB, BOB_LINE = new_key("bob")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, api_keys=f"{ALICE_LINE} {ALICE_NEW_LINE} {BOB_LINE}")


@pytest.fixture
def task_id(client: httpx2.Client) -> str:
    identity: str = client.post("/predict", content=PICTURE, headers=bearer(ALICE)).json()["task_id"]
    return identity


@pytest.mark.parametrize(
    "headers",
    [bearer(ALICE), {"Authorization": f"bearer  {ALICE}"}, {"X-API-Key": ALICE}],
    ids=["bearer", "lower case", "X-API-Key"],
)
def test_a_key_lets_in(client: httpx2.Client, headers: dict[str, str]) -> None:
    assert client.post("/predict", content=PICTURE, headers=headers).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("yolo_wrong"),
        bearer(""),
        bearer(ALICE + "x"),
        bearer(hashlib.sha256(ALICE.encode()).hexdigest()),
        {"Authorization": f"Basic {ALICE}"},
        {"X-API-Key": ""},
        {"X-API-Key": "\xff"},
    ],
    ids=["none", "wrong", "empty", "longer", "its digest", "other scheme", "empty X-API-Key", "no ASCII"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [(each.method, each.path) for each in routes.operations if not each.public],
    ids=[f"{each.method} {each.path}" for each in routes.operations if not each.public],
)
def test_without_a_right_key_nothing_is_told(
    client: httpx2.Client, headers: dict[str, str], method: str, path: str
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = client.request(method, path, headers=raw)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_a_key_in_the_url_is_none(client: httpx2.Client) -> None:
    assert client.get("/models", params={"api_key": ALICE, "key": ALICE}).status_code == 401


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/status", "/openapi.json"])
def test_health_and_description_are_open(client: httpx2.Client, path: str) -> None:
    assert client.get(path).status_code in (200, 503)


OF_A_TASK = [each for each in routes.operations if "{task_id}" in each.path]


@pytest.mark.parametrize("operation", OF_A_TASK, ids=[f"{each.method} {each.path}" for each in OF_A_TASK])
@pytest.mark.parametrize("ended", [False, True], ids=["queued", "ended"])
def test_a_task_is_unknown_to_other_keys(
    client: httpx2.Client, task_id: str, work: Callable[[], None], operation: Operation, ended: bool
) -> None:
    if ended:
        work()
    path = operation.path.format(task_id=task_id)
    refused = client.request(operation.method, path, headers=bearer(BOB))
    unknown_id = new_id("bob")
    unknown = client.request(operation.method, operation.path.format(task_id=unknown_id), headers=bearer(BOB))
    assert refused.status_code == unknown.status_code == 404
    told = [{**answer.json(), "request_id": ""} for answer in (refused, unknown)]
    assert told[0]["detail"].replace(task_id, unknown_id) == told[1].pop("detail")
    assert told[0] | {"detail": ""} == told[1] | {"detail": ""}
    assert client.get(f"/result/{task_id}", headers=bearer(ALICE)).status_code == 200


def test_an_id_with_ones_own_tag_is_another_id(client: httpx2.Client, task_id: str) -> None:
    random = task_id[:32]
    forged = next(iter({random + new_id("bob")[32:], random}))
    assert client.get(f"/result/{forged}", headers=bearer(BOB)).status_code == 404


def test_a_new_key_of_the_same_name_sees_the_tasks(
    client: httpx2.Client, task_id: str, work: Callable[[], None]
) -> None:
    work()
    answer = client.get(f"/result/{task_id}", headers=bearer(ALICE_NEW))
    assert answer.json()["status"] == "SUCCESS"


def test_a_batch_is_unknown_to_other_keys(client: httpx2.Client) -> None:
    files = [("image", ("a.png", PICTURE)), ("image", ("b.png", encoded(8, 8)))]
    batch = client.post("/predict", files=files, headers=bearer(ALICE)).json()
    place = f"/batches/{batch['batch_id']}"
    assert client.get(place, headers=bearer(ALICE)).status_code == 200
    assert client.get(place, headers=bearer(BOB)).json()["code"] == "task_not_found"
    for task in batch["tasks"]:
        assert client.get(f"/result/{task['task_id']}", headers=bearer(BOB)).status_code == 404


def test_idempotency_keys_are_the_owners(client: httpx2.Client, connection: "redis.Redis") -> None:
    same = {"Idempotency-Key": "order-66"}
    first, again, other = (
        client.post("/predict", content=PICTURE, headers=same | bearer(key)).json()["task_id"]
        for key in (ALICE, ALICE_NEW, BOB)
    )
    assert first == again != other
    assert connection.llen("rq:queue:predict") == 2


def test_ids_are_bound_to_their_owner() -> None:
    identity = new_id("alice")
    assert is_owner("alice", identity)
    assert not is_owner("alic", identity) and not is_owner("", identity)
    assert not is_owner("alice", new_id("")) and not is_owner("alice", "") and not is_owner("alice", "ä" * 48)
    assert len({new_id("alice") for _ in range(1000)}) == 1000


def test_no_key_is_stored(client: httpx2.Client, task_id: str, work: Callable[[], None], redis_url: str) -> None:
    work()
    with redis.Redis.from_url(redis_url) as connection:
        stored = b"".join(connection.dump(key) or b"" for key in connection.scan_iter())
    assert ALICE.encode() not in stored and ALICE not in repr(load_keys(Settings(api_keys=ALICE_LINE)))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# who may come\n{ALICE_LINE}:600/minute   # the camera at the gate\n\n{BOB_LINE}\n")
    return path


def test_keys_are_read_from_a_file(key_file: Path) -> None:
    keys = load_keys(Settings(api_keys_file=str(key_file)))
    found = keys.find(ALICE)
    assert found and (found.name, found.rate) == ("alice", "600/minute")
    assert keys.find(BOB) and not keys.find("yolo_wrong")


@pytest.mark.parametrize(
    "entry",
    [ALICE, "alice", f"alice:{ALICE}", f"{ALICE_LINE}:600", f"{ALICE_LINE}:often", f"a/b:{'0' * 64}"],
    ids=["plain key", "name", "name and plain key", "rate without period", "no rate", "bad name"],
)
def test_a_bad_entry_is_told_and_not_shown(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"^API_KEYS: entry 2 is not NAME:SHA256") as caught:
        load_keys(load({"API_KEYS": f"{BOB_LINE} {entry}"}))
    assert ALICE not in str(caught.value)


@pytest.mark.parametrize("content", [None, "# nobody\n"], ids=["missing", "empty"])
def test_a_file_without_keys_does_not_open_the_service(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=str(path)):
        load_keys(Settings(api_keys_file=str(path)))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "gateway.example"}, False),
        ({"host": "0.0.0.0", "published_on": "127.0.0.1"}, True),
        ({"host": "0.0.0.0", "published_on": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "allow_open": True}, True),
        ({"host": "0.0.0.0", "api_keys": ALICE_LINE}, True),
    ],
    ids=[
        "default",
        "IPv6 loopback",
        "localhost",
        "all",
        "all IPv6",
        "a name",
        "published here",
        "published to all",
        "told",
        "with keys",
    ],
)
def test_without_keys_the_service_stays_on_this_machine(changes: dict[str, object], allowed: bool) -> None:
    settings = msgspec.convert(changes, Settings)
    if allowed:
        check_exposure(settings)
    else:
        with pytest.raises(SettingsError, match=r"^(HOST|PUBLISHED_ON)=.*ALLOW_OPEN=true"):
            check_exposure(settings)


def run(module: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**environment, "PATH": ""})


def test_the_gateway_says_in_one_line_that_it_will_not_start() -> None:
    done = run("gateway.web", HOST="0.0.0.0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "API_KEYS_FILE" in done.stderr and "ALLOW_OPEN" in done.stderr


def test_keys_new_prints_a_key_and_the_line_to_store() -> None:
    done = run("gateway", "keys", "new", "--name", "gate.camera-1")
    key, line = (each.rpartition(" ")[2] for each in done.stdout.splitlines())
    found = load_keys(Settings(api_keys=line)).find(key)
    assert (done.returncode, done.stderr) == (0, "")
    assert found and found.name == "gate.camera-1" and len(key) > 40


def test_the_webhook_secret_of_a_key_is_printed() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    done = run("gateway", "keys", "webhook", "--name", "camera-1", WEBHOOK_SECRET=secret)
    assert (done.returncode, done.stdout.split()[-1]) == (0, secret_of(secret, "camera-1"))
    new = run("gateway", "keys", "new", "--name", "camera-1", WEBHOOK_SECRET=secret)
    assert new.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("secret", "said"), [("", "is not set"), ("whsec_no base64!", "is not whsec_ and base64")])
def test_without_a_webhook_secret_of_the_service_there_is_none_of_a_key(secret: str, said: str) -> None:
    done = run("gateway", "keys", "webhook", "--name", "camera-1", WEBHOOK_SECRET=secret)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and said in done.stderr


def test_keys_new_refuses_a_bad_name() -> None:
    done = run("gateway", "keys", "new", "--name", "a:b")
    assert done.returncode == 2 and "give 1 to 64 letters" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("given", [" ", "\t\n", ",", "# nobody", " # nobody\n\n"])
def test_api_keys_without_a_key_open_nothing(given: str) -> None:
    for module in ("gateway.web", "local"):
        done = run(module, API_KEYS=given)
        assert done.returncode in (1, 2) and done.stdout == ""
        assert "API_KEYS is set and has no key" in done.stderr and done.stderr.count("\n") == 1


def test_an_empty_variable_is_none() -> None:
    assert not load_keys(load({"API_KEYS": ""}))  # so Compose passes on what is not set


def test_no_keys_are_asked_for_when_there_are_none() -> None:
    assert not Keyring([]) and not load_keys(Settings())


@pytest.fixture
def open_client(settings: Settings) -> Iterator[httpx2.Client]:
    with client_of(msgspec.structs.replace(settings, api_keys=None)) as client:
        yield client


def test_without_keys_whoever_has_the_id_sees_the_task(open_client: httpx2.Client, task_id: str) -> None:
    assert open_client.get(f"/result/{task_id}").status_code == 200
