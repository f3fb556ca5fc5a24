"""Where the Triton is that export, doctor and evaluation talk to."""

import json
import socket
from pathlib import Path

import pytest

from export.address import AddressError, Place, find, running_here


@pytest.mark.parametrize(
    ("given", "environment", "place"),
    [
        (("", ""), {}, Place("127.0.0.1:8001", "http://127.0.0.1:8002/metrics")),
        (("triton:9001", ""), {"TRITON_URL": "a:1"}, Place("triton:9001", "http://triton:8002/metrics")),
        (("", ""), {"TRITON_URL": "[::1]:8001"}, Place("[::1]:8001", "http://[::1]:8002/metrics")),
        (("", "http://m/x"), {"TRITON_URL": "a:1", "METRICS_URL": "http://n"}, Place("a:1", "http://m/x")),
    ],
    ids=["nothing", "option", "environment", "metrics"],
)
def test_where_triton_is(given: tuple[str, str], environment: dict[str, str], place: Place, tmp_path: Path) -> None:
    assert find(*given, environment | {"RUN_DIR": str(tmp_path)}) == place


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "127.0.0.1", "host:grpc"])
def test_an_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(AddressError, match=r"give Triton's gRPC endpoint, such as 127\.0\.0\.1:8001"):
        find(url, "", {})


@pytest.mark.parametrize("url", ["a:8001,b:8001", "dns:///tritons:8001"])
def test_several_tritons_are_asked_one_by_one(url: str) -> None:
    with pytest.raises(AddressError, match="may be several Tritons; give the host:port of one"):
        find("", "", {"TRITON_URL": url})


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret\n")
    assert find("a:1", "", {"TRITON_KEY_FILE": str(path)}).key == "secret"
    with pytest.raises(AddressError, match=r"TRITON_KEY_FILE=.*No such file"):
        find("a:1", "", {"TRITON_KEY_FILE": str(tmp_path / "none")})


def test_a_stack_that_has_ended_is_ignored(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        state = tmp_path / "stack.json"
        state.write_text(json.dumps({"triton": {"grpc": f"127.0.0.1:{port}"}}))
        assert running_here(state) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"127.0.0.1:{server.getsockname()[1]}"
        state.write_text(json.dumps({"triton": {"grpc": url, "metrics": "http://here/metrics"}}))
        assert running_here(state) == Place(url, "http://here/metrics")
        for damaged in ("", "[]", '{"triton": 1}', '{"triton": {"grpc": "8001"}}'):
            state.write_text(damaged)
            assert running_here(state) is None
