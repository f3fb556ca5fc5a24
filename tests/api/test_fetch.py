"""Images by URL, from real TLS servers; names and addresses are the test's own."""

import asyncio
import gzip
import subprocess
import sys
import time

import msgspec
import pytest

from gateway.errors import FetchFailed, GatewayError, ImageTooLarge, ServiceUnavailable, SwitchedOff, UrlNotAllowed
from gateway.outbound.https import NameServerSlow, Outbound
from gateway.outbound.images import Fetcher
from gateway.settings import Settings
from tests.support.internet import PUBLIC_ADDRESS, Answer, Internet, Site, reachable, reply

NAME = "pictures.example"
URL = f"https://{NAME}/bus.jpg"
SETTINGS = Settings(fetch_urls=True, fetch_timeout=5, max_image_bytes=1000)
HASTY = Settings(fetch_urls=True, fetch_timeout=0.3)
OTHER_PUBLIC_ADDRESS = "93.184.215.15"


def fetch(answer: Answer, url: str = URL, settings: Settings = SETTINGS) -> bytes:
    """Fetch from a site that gives `answer`."""

    async def run() -> bytes:
        async with reachable(Site(answer, NAME), NAME) as (_, outbound):
            return await Fetcher(settings, outbound).fetch(url)

    return asyncio.run(run())


def resolve_to(*answers: list[str], site: Site | None = None) -> tuple[Internet, bytes | GatewayError]:
    """Fetch with a name server that gives these answers, one after the other."""
    site = site or Site(reply(200, b"picture"), NAME)

    async def run() -> tuple[Internet, bytes | GatewayError]:
        async with reachable(site, NAME) as (internet, outbound):
            internet.names[NAME] = list(answers)
            internet.ports["127.0.0.1"] = internet.ports[PUBLIC_ADDRESS]
            try:
                return internet, await Fetcher(SETTINGS, outbound).fetch(URL)
            except GatewayError as error:
                return internet, error

    return asyncio.run(run())


def drip(pause_seconds: float, *pieces: bytes) -> Answer:
    """Writes the pieces with pauses between; the last one again and again."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_seconds)
        while not writer.is_closing():
            writer.write(pieces[-1])
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return answer


def test_an_image_is_fetched() -> None:
    async def run() -> None:
        site = Site(reply(200, b"picture"), NAME)
        async with reachable(site, NAME) as (internet, outbound):
            assert await Fetcher(SETTINGS, outbound).fetch(f"{URL}?size=1#top") == b"picture"
        assert internet.connected == [(PUBLIC_ADDRESS, 443)]
        assert site.server_names == [NAME]
        head = site.requests[0].split(b"\r\n")
        assert head[0] == b"GET /bus.jpg?size=1 HTTP/1.1"
        assert {b"Host: pictures.example", b"Accept-Encoding: identity"} <= set(head)

    asyncio.run(run())


def test_a_body_of_unknown_length_is_fetched() -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npict\r\n3\r\nure\r\n0\r\n\r\n"

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(body)

    assert fetch(answer) == b"picture"


def test_nothing_is_fetched_unless_switched_on() -> None:
    with pytest.raises(SwitchedOff, match="FETCH_URLS"):
        fetch(reply(200, b"picture"), settings=Settings())


@pytest.mark.parametrize(
    "url", ["http://pictures.example/", "https://me:pw@pictures.example/", "https://pictures.example:8443"]
)
def test_a_url_that_is_not_allowed_is_not_looked_up(url: str) -> None:
    async def run() -> None:
        internet = Internet({NAME: [[PUBLIC_ADDRESS]]})
        with pytest.raises(UrlNotAllowed):
            await Fetcher(SETTINGS, Outbound([443], internet)).fetch(url)
        assert internet.asked == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["fe80::1%eth0"],
        [PUBLIC_ADDRESS, "127.0.0.1"],
        ["2a00:1450:4001:800::200e", "10.0.0.1", PUBLIC_ADDRESS],
    ],
    ids=lambda addresses: "+".join(addresses),
)
def test_a_name_with_any_address_that_is_not_public_is_never_connected_to(addresses: list[str]) -> None:
    internet, end = resolve_to(addresses)
    assert isinstance(end, UrlNotAllowed)
    assert internet.connected == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "2130706433", "0x7f.1", "127.1", "localhost"]
)
def test_loopback_is_refused_in_every_spelling_by_the_real_resolver(host: str) -> None:
    with pytest.raises(UrlNotAllowed):
        asyncio.run(Fetcher(SETTINGS, Outbound([443])).fetch(f"https://{host}/"))


def test_an_unknown_name_and_a_private_one_are_told_in_the_same_words() -> None:
    _, unknown = resolve_to([])
    _, private = resolve_to(["10.0.0.1"])
    assert isinstance(unknown, UrlNotAllowed)
    assert str(unknown) == str(private) == f"{NAME} does not resolve to public addresses"


def test_a_name_server_that_changes_its_answer_is_asked_once() -> None:
    internet, end = resolve_to([PUBLIC_ADDRESS], ["127.0.0.1"])
    assert end == b"picture"
    assert internet.asked == [NAME]
    assert internet.connected == [(PUBLIC_ADDRESS, 443)]


def test_the_next_address_is_tried_when_one_is_down() -> None:
    internet, end = resolve_to([OTHER_PUBLIC_ADDRESS, PUBLIC_ADDRESS])
    assert end == b"picture"
    assert internet.connected == [(OTHER_PUBLIC_ADDRESS, 443), (PUBLIC_ADDRESS, 443)]


def test_a_host_that_is_down_is_told() -> None:
    _, end = resolve_to([OTHER_PUBLIC_ADDRESS])
    assert isinstance(end, FetchFailed)
    assert str(end) == f"the image cannot be fetched: {NAME}: no TLS connection comes about"


def test_a_certificate_for_another_name_is_refused() -> None:
    _, end = resolve_to([PUBLIC_ADDRESS], site=Site(reply(200, b"picture"), "other.example"))
    assert isinstance(end, FetchFailed)
    assert "Hostname mismatch" in str(end)


def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    async def run() -> None:
        site, other = Site(reply(200, b"picture"), NAME), Site(reply(), NAME)
        async with reachable(site, NAME) as (internet, _):
            with pytest.raises(FetchFailed, match="its certificate is not accepted"):
                await Fetcher(SETTINGS, Outbound([443], internet, other.trusting)).fetch(URL)
            assert site.requests == []

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    async def run() -> None:
        site = Site(reply(status, b"", f"Location: https://{NAME}/elsewhere"), NAME)
        async with reachable(site, NAME) as (_, outbound):
            with pytest.raises(FetchFailed, match="redirect"):
                await Fetcher(SETTINGS, outbound).fetch(URL)
        assert len(site.requests) == 1

    asyncio.run(run())


@pytest.mark.parametrize("status", [201, 204, 206, 404, 500])
def test_another_status_than_200_is_told(status: int) -> None:
    with pytest.raises(FetchFailed, match=f"status {status}"):
        fetch(reply(status))


def test_a_declared_length_above_the_limit_is_refused_unread() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await asyncio.sleep(30)

    with pytest.raises(ImageTooLarge):
        fetch(answer)


def test_a_body_without_end_is_cut_at_the_limit() -> None:
    chunk = b"200\r\n" + bytes(0x200) + b"\r\n"
    with pytest.raises(ImageTooLarge, match="more than 1000 bytes"):
        fetch(drip(0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk))


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert fetch(reply(200, bytes(1000))) == bytes(1000)
    with pytest.raises(ImageTooLarge):
        fetch(reply(200, bytes(1001)))


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity"])
def test_a_compressed_body_is_refused(encoding: str) -> None:
    with pytest.raises(FetchFailed, match="compressed"):
        fetch(reply(200, gzip.compress(bytes(100_000)), f"Content-Encoding: {encoding}"))


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
    ],
    ids=["head", "body", "informational"],
)
def test_a_slow_answer_is_given_up_in_time(pieces: tuple[bytes, ...]) -> None:
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=r"within 0\.3 s"):
        fetch(drip(0.05, *pieces), settings=HASTY)
    assert time.monotonic() - started < 3


def test_a_name_server_that_hangs_is_given_up_in_time() -> None:
    class Hanging(Internet):
        async def resolve(self, host: str, port: int) -> list[str]:
            await asyncio.sleep(30)
            return []

    with pytest.raises(FetchFailed, match="within"):
        asyncio.run(Fetcher(HASTY, Outbound([443], Hanging())).fetch(URL))


def test_dead_names_of_one_client_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(Internet):
        async def resolve(self, host: str, port: int) -> list[str]:
            if host.startswith("dead"):
                await asyncio.sleep(30)
            return [PUBLIC_ADDRESS]

    monkeypatch.setattr("gateway.outbound.https._RESOLVE_SECONDS", 3.0)

    async def run() -> None:
        outbound = Outbound([443], Dead())
        dead = [outbound.check(f"https://dead{number}.example/", "key:greedy") for number in range(100)]
        begun = asyncio.ensure_future(asyncio.gather(*dead, return_exceptions=True))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await outbound.check("https://well.example/", "key:honest")
        assert time.monotonic() - started < 2
        assert {type(error) for error in await begun} == {NameServerSlow}
        with pytest.raises(NameServerSlow):  # the resolver still holds their places
            await outbound.check("https://well.example/", "key:greedy")
        await outbound.check("https://well.example/", "key:honest")

    asyncio.run(run())


def test_a_slow_name_server_is_no_final_answer() -> None:
    class Hanging(Internet):
        async def resolve(self, host: str, port: int) -> list[str]:
            await asyncio.sleep(30)
            return []

    patient = msgspec.structs.replace(SETTINGS, fetch_timeout=20)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ServiceUnavailable, match="name server does not answer"):
        patch.setattr("gateway.outbound.https._RESOLVE_SECONDS", 0.2)
        asyncio.run(Fetcher(patient, Outbound([443], Hanging())).fetch(URL))


def test_the_systems_resolver_is_given_up_and_keeps_no_process_from_ending() -> None:
    code = (
        "import asyncio, socket, time\n"
        "from gateway.outbound import https\n"
        "https._RESOLVE_SECONDS = 0.3\n"
        "socket.getaddrinfo = lambda *a, **k: time.sleep(60)\n"
        "async def main():\n"
        "    try: await https.Outbound([443]).check('https://dead.example/')\n"
        "    except https.NameServerSlow as error: print(error)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "dead.example: the name server does not answer in time; try again later\n", done.stderr
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\n" + b"a" * 200_000,
    ],
    ids=["nothing", "not-http", "half-a-body", "endless-head"],
)
def test_a_broken_answer_is_told(answer: bytes) -> None:
    async def write(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    with pytest.raises(FetchFailed, match="breaks off"):
        fetch(write)


def test_another_port_needs_the_setting() -> None:
    async def run() -> None:
        site = Site(reply(200, b"picture"), NAME)
        async with reachable(site, NAME, ports=(443, 8443)) as (internet, outbound):
            assert await Fetcher(SETTINGS, outbound).fetch(f"https://{NAME}:8443/") == b"picture"
        assert internet.connected == [(PUBLIC_ADDRESS, 8443)]
        assert b"Host: pictures.example:8443\r\n" in site.requests[0]

    asyncio.run(run())


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(reply(200, b"picture")) == b"picture"
