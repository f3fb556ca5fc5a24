"""What `python -m local` reads and prints."""

import socket
from pathlib import Path

import pytest

from gateway.settings import Settings
from local.__main__ import check_model, lock, read_settings, redis_port, stack_size
from local.errors import LocalError
from local.ports import USUAL, check_free, choose, free_ports
from local.ready import ready_line
from local.stack import settings


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        check_free("127.0.0.1", port)


def test_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalError, match=f"{port}: address already in use"):
            check_free("127.0.0.1", port)


def test_host_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(LocalError, match=r"192\.0\.2\.1:5000: .*make run HOST="):
        check_free("192.0.2.1", 5000)


@pytest.mark.parametrize("name", ["WORKERS", "GATEWAYS"])
@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1000"])
def test_workers_and_gateways_have_bounds(name: str, wrong: str) -> None:
    with pytest.raises(LocalError, match=f"{name}={wrong}: give a whole number from 1 to "):
        stack_size({name: wrong}, 0)


def test_each_gateway_has_metrics_of_its_own() -> None:
    assert stack_size({}, 9464) == stack_size({"WORKERS": "", "GATEWAYS": "1"}, 9464) == (2, (9464,))
    workers, ports = stack_size({"WORKERS": "5", "GATEWAYS": "3"}, 9464)
    assert (workers, ports[0], len(set(ports))) == (5, 9464, 3)
    assert stack_size({"GATEWAYS": "2"}, 0).gateways == (0, 0)


def test_wrong_setting_is_told_in_one_line() -> None:
    with pytest.raises(LocalError, match="PORT=http"):
        read_settings({"PORT": "http"})


def test_own_redis_unless_one_is_named() -> None:
    found = settings("tiny", Path("models"), Path("run"), {**USUAL, **redis_port({})})
    assert found["REDIS_URL"].endswith(f":{found['LOCAL_REDIS_PORT']}/0")
    assert found["TRITON_URL"] == "127.0.0.1:8001"


def test_ports_are_the_usual_ones_where_these_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.ports.USUAL", dict(zip(USUAL, usual := free_ports(5), strict=True)))
    assert list(choose({}, 1).values()) == usual
    with socket.create_server(("127.0.0.1", usual[1])):
        chosen = choose({}, usual[0])  # the gateway's is taken too, though nobody listens yet
    assert list(chosen.values())[2:] == usual[2:]
    assert not set(chosen.values()) & set(usual[:2])


def test_a_given_port_is_kept_to() -> None:
    http, grpc = free_ports(2)
    chosen = choose({"TRITON_HTTP_PORT": str(http), "TRITON_GRPC_PORT": str(grpc), "METRICS_PORT": "0"}, 5000)
    assert (chosen["TRITON_HTTP_PORT"], chosen["TRITON_GRPC_PORT"], chosen["METRICS_PORT"]) == (http, grpc, 0)


def test_a_given_port_that_cannot_be_had_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalError, match=rf"{port}: address already in use.*make run TRITON_GRPC_PORT="):
            choose({"TRITON_GRPC_PORT": str(port)}, 5000)
    with pytest.raises(LocalError, match="TRITON_METRICS_PORT=x: give a port, 1 to 65535"):
        choose({"TRITON_METRICS_PORT": "x"}, 5000)
    with pytest.raises(LocalError, match=f"TRITON_HTTP_PORT and TRITON_GRPC_PORT={port}: this port is given to two"):
        choose({"TRITON_HTTP_PORT": str(port), "TRITON_GRPC_PORT": str(port)}, 5000)


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1/0", "127.0.0.1:6379", "redis://127.0.0.1:1/0?colour=red"],
    ids=["nobody there", "no URL", "unknown option"],
)
def test_named_redis_must_answer(url: str) -> None:
    with pytest.raises(LocalError, match="REDIS_URL"):
        redis_port({"REDIS_URL": url})


def test_missing_model_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "yolov5n" / "1").mkdir(parents=True)
    (tmp_path / "yolov5n" / "1" / "model.onnx").touch()
    (tmp_path / "yolov5n" / "config.pbtxt").touch()
    check_model(tmp_path, "yolov5n")
    with pytest.raises(
        LocalError, match=r"no model yolov5s .* there are: yolov5n; run `make export-model MODEL=yolov5s`"
    ):
        check_model(tmp_path, "yolov5s")


def test_one_stack_per_folder(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(LocalError, match="another stack"):
        lock(tmp_path)
    lock(tmp_path).close()


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    lock(tmp_path).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o1777)
    with pytest.raises(LocalError, match="shared with other users; give a folder of your own"):
        lock(tmp_path)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")],
    ids=["IPv4", "any", "IPv6"],
)
def test_ready_line_has_an_address_that_can_be_reached(host: str, address: str) -> None:
    line = ready_line(Settings(host=host, port=5001), "yolov5n")
    assert line.startswith(f"Ready: http://{address}:5001 ") and "\n" not in line and "curl" in line
