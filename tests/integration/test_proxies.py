"""Behind real proxies: a refusal stays what it is, nobody is marked down, long answers and large bodies pass.

The configurations are those of docs/operations.md, with other addresses, and nginx' own defaults.
"""

import hashlib
import os
import re
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import trustme

from local.ports import free_ports
from tests.support.gateway import HEAD, Gateway, read_to_end, running_gateway
from tests.support.pictures import encoded
from tests.support.shared import photograph
from tests.support.stack import ROOT, Stack, Triton, running_program, running_stack, wait_until

KEY = "yolo-" + "k" * 40
BODY = encoded(64, 48, ".jpg") + bytes(3_000_000)


def example(language: str) -> str:
    """The configuration of that proxy in the handbook."""
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def nginx_defaults(port: int, servers: list[str], folder: Path) -> list[str]:
    there = "".join(f"server {each}; " for each in servers)
    site = f"upstream yolo {{ {there}}} server {{ listen 127.0.0.1:{port}; client_max_body_size 60m;"
    return nginx(f"{site} location / {{ proxy_pass http://yolo; proxy_set_header Host $host; }} }}", folder)


def nginx_example(port: int, servers: list[str], folder: Path) -> list[str]:
    site = example("nginx").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    site = site.replace("server 127.0.0.1:5000;", "".join(f"server {each};" for each in servers))
    return nginx(site.replace("/etc/ssl", str(folder)), folder)


def nginx(site: str, folder: Path) -> list[str]:
    user = "user root;" if os.getuid() == 0 else ""
    places = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"{user} daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {places} {site} }}"
    (folder / "nginx.conf").write_text(text)
    return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def haproxy_example(port: int, servers: list[str], folder: Path) -> list[str]:
    text = example("haproxy").replace("bind :443", f"bind 127.0.0.1:{port}").replace("/etc/ssl", str(folder))
    # There is no Triton behind some of these gateways.
    lines = "".join(f"    server s{number} {each} check\n" for number, each in enumerate(servers))
    text = text.replace("    server one 127.0.0.1:5000 check\n", lines).replace(
        "/readyz", "/livez"
    )  # there is no Triton
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


def caddy_example(port: int, servers: list[str], folder: Path) -> list[str]:
    text = example("caddyfile").replace(
        "detect.example.org {", f"https://detect.example.org:{port} {{\n    tls {folder}/detect.pem {folder}/detect.key"
    )
    text = "{\n  admin off\n  auto_https disable_redirects\n}\n" + text.replace("127.0.0.1:5000", " ".join(servers))
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


PROXIES = {
    "nginx, its defaults": nginx_defaults,
    "nginx": nginx_example,
    "HAProxy": haproxy_example,
    "Caddy": caddy_example,
}


@contextmanager
def proxied(name: str, servers: list[str], folder: Path) -> Iterator[httpx2.Client]:
    """A client of that proxy in front of the servers."""
    (port,) = free_ports(1)
    authority = trustme.CA()
    certificate = authority.issue_cert("detect.example.org")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "detect.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "detect.key"))
    command = PROXIES[name](port, servers, folder)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = name != "nginx, its defaults"
    settings = {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with running_program(command, settings, folder / "proxy.log") as process, ExitStack() as exits:
        headers = {"Host": "detect.example.org"}
        client = exits.enter_context(
            httpx2.Client(base_url=f"http{'s' * tls}://127.0.0.1:{port}", verify=context, headers=headers, timeout=90)
        )
        client.event_hooks["request"] = [named]
        wait_until(lambda: answers(client), process, folder / "proxy.log")
        yield client


def named(request: httpx2.Request) -> None:
    request.extensions["sni_hostname"] = "detect.example.org"


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx2.HTTPError:
        return False


def address(gateway: Gateway) -> str:
    return f"127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
def gateways(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    """Two gateways that ask for a key, and have one host name."""
    key = f"camera:{hashlib.sha256(KEY.encode()).hexdigest()}"
    settings = {"API_KEYS": key, "TRUSTED_HOSTS": "detect.example.org,localhost,127.0.0.1", "DRAIN_SECONDS": "0"}
    with ExitStack() as exits:
        yield [
            exits.enter_context(running_gateway(redis_server, tmp_path_factory.mktemp("gateway"), **settings))
            for _ in range(2)
        ]


@pytest.fixture(params=PROXIES, scope="module")
def proxy(
    request: pytest.FixtureRequest, gateways: list[Gateway], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    servers = [address(each) for each in gateways]
    with proxied(request.param, servers, tmp_path_factory.mktemp("proxy")) as client:
        yield client


def test_uploads_without_a_key_are_refused_and_nobody_is_marked_down(proxy: httpx2.Client) -> None:
    seen, stop = list[int](), threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(proxy.get("/livez").status_code)
            time.sleep(0.01)

    other = threading.Thread(target=look)
    other.start()
    try:
        found = [proxy.post("/predict", files={"image": BODY}).status_code for _ in range(30)]
    finally:
        stop.set()
        other.join()
    assert found == [401] * 30
    assert len(seen) > 3 and set(seen) == {200}


REFUSALS = {
    "404": ("POST", "/nothing", {}, b"", 404),
    "405": ("PUT", "/predict", {}, b"", 405),
    "413": ("POST", "/predict", {}, bytes(30_000_000), 413),
    "415": ("POST", "/predict", {"Content-Encoding": "gzip"}, b"", 415),
    "421": ("POST", "/predict", {"Host": "other.example.org"}, b"", 421),
    "422": ("POST", "/predict?conf=2", {}, b"", 422),
    "503": ("POST", "/predict?model=helmets", {}, b"", 503),
}


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), REFUSALS.values(), ids=REFUSALS)
def test_every_refusal_of_a_large_body_arrives(
    request: pytest.FixtureRequest,
    proxy: httpx2.Client,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
) -> None:
    if status == 421 and "Caddy" in request.node.callspec.id:
        pytest.skip("Caddy answers for hosts that it does not know by itself")
    for _ in range(5):
        answer = proxy.request(method, path, headers={"X-API-Key": KEY, **headers}, content=body or BODY)
        assert answer.status_code == status, answer.text
    assert proxy.get("/livez").status_code == 200


@pytest.fixture(scope="module")
def named_stack(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service under the name that its clients use."""
    settings = {"TRUSTED_HOSTS": "detect.example.org,127.0.0.1", "MAX_REQUEST_BYTES": "52428800"}
    with running_stack(triton, tmp_path_factory.mktemp("stack"), "yolov5n", settings=settings) as stack:
        yield stack


@pytest.fixture(params=PROXIES, scope="module")
def service(
    request: pytest.FixtureRequest, named_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    server = named_stack.base_url.removeprefix("http://")
    with proxied(request.param, [server], tmp_path_factory.mktemp("proxy")) as client:
        yield client


def test_an_answer_that_is_waited_for_passes(service: httpx2.Client) -> None:
    answer = service.post("/predict?wait=30", files={"image": photograph("bus.jpg")})
    assert (answer.status_code, answer.json()["status"]) == (200, "SUCCESS")


def test_a_large_batch_passes(service: httpx2.Client) -> None:
    image = photograph("bus.jpg")
    padded = image + bytes(5_000_000 - len(image))
    answer = service.post("/predict", files=[("image", (f"{number}.jpg", padded)) for number in range(10)])
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 60
    while (batch := service.get(answer.headers["location"]).json())["pending"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (batch["total"], batch["succeeded"]) == (10, 10), batch


def test_events_come_one_by_one(service: httpx2.Client) -> None:
    task_id = service.post("/predict", files={"image": photograph("bus.jpg")}).json()["task_id"]
    with service.stream("GET", f"/result/{task_id}/events") as answer:
        assert answer.status_code == 200
        assert "succeeded" in "".join(answer.iter_text())


def test_expect_100_continue_is_refused_before_the_body(gateways: list[Gateway]) -> None:
    head = HEAD.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length")
    with gateways[0].connect() as connection:
        connection.sendall(head)
        answer = read_to_end(connection)
    assert answer is not None and answer.status == 401 and answer.headers["connection"] == "close"
