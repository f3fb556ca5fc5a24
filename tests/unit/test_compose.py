"""The composed stack as far as it can be looked at without an engine."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from export.config import Serving
from export.graph import engine
from gateway.settings import load, rows

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.shm.yml", "docker-compose.test.yml")

# Set by the images or fixed by the composition; not for people to change.
FIXED = {"HOST", "PORT", "METRICS_HOST", "METRICS_PORT", "WORKER_METRICS_PORT", "PROMETHEUS_MULTIPROC_DIR"}


class Strict(yaml.SafeLoader):  # type: ignore[misc]
    """As Compose v2 reads: a key that stands there twice is an error, which docker-compose 1.29 lets pass."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        assert len(names) == len(set(names)), f"line {node.start_mark.line + 1}: a key stands there twice: {names}"
        constructed: dict[Any, Any] = super().construct_mapping(node, deep)
        return constructed


def composed(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / name).read_text(), Strict)
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = composed("docker-compose.yml")["services"]
    return found


def test_only_the_gateway_is_published(services: dict[str, Any]) -> None:
    published = {name for name, service in services.items() if "ports" in service and "profiles" not in service}
    assert published == {"gateway"}


def test_what_is_published_listens_on_loopback_unless_told(services: dict[str, Any]) -> None:
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${GATEWAY_ADDRESS:-127.0.0.1}:"))


def test_redis_and_triton_reach_no_other_network(services: dict[str, Any]) -> None:
    assert composed("docker-compose.yml")["networks"]["back"] == {"internal": True}
    for name in ("redis", "triton", "worker"):
        assert services[name]["networks"] == ["back"]


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name


@pytest.mark.parametrize(
    ("name", "service"), [("docker-compose.yml", "redis"), ("docker-compose.test.yml", "test-redis")]
)
def test_redis_is_set_as_the_documents_say_it_must_be(name: str, service: str) -> None:
    words = shlex.split(composed(name)["services"][service]["command"])
    options = dict(zip(words[::2], words[1::2], strict=True))
    section = (ROOT / "docs" / "reliability.md").read_text().partition("## What Redis needs")[2]
    table = section.partition("| `appendfsync` |")[0].split("|---|---|")[1]
    wanted = dict(re.findall(r"`([a-z-]+) (\w+)`", table))
    assert wanted["appendfsync"] == "always"
    assert {f"--{name}": value for name, value in wanted.items()}.items() <= options.items()
    assert options["--save"] == ""
    assert "--maxmemory" in options


def test_every_setting_can_be_given(services: dict[str, Any]) -> None:
    given = set(services["gateway"]["environment"])
    assert given == {name for name, _, _ in rows()} - FIXED
    assert services["worker"]["environment"] == services["gateway"]["environment"]


def test_the_defaults_of_the_composition_are_settings(services: dict[str, Any]) -> None:
    environment = services["gateway"]["environment"]
    defaults = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in environment.items()}
    assert load(defaults).redis_url == "redis://redis:6379/0"


def test_memory_is_shared_between_workers_and_triton_only(services: dict[str, Any]) -> None:
    overlay = composed("docker-compose.shm.yml")
    assert overlay["services"] == {name: {"volumes": ["shm:/dev/shm"]} for name in ("triton", "worker")}
    assert list(overlay["volumes"]) == ["shm"]
    for service in services.values():
        assert "/dev/shm" not in str(service.get("volumes")), "not without being asked for"


def test_engines_are_built_by_the_image_that_serves_them() -> None:
    dockerfile = (ROOT / "docker" / "triton-gpu.Dockerfile").read_text()
    assert f"ARG IMAGE={engine.IMAGE}\n" in dockerfile
    args = composed("docker-compose.gpu.yml")["services"]["triton"]["build"]["args"]
    assert args == {"IMAGE": f"${{TRITON_IMAGE:-{engine.IMAGE}}}"}


def test_on_a_gpu_enough_images_are_on_their_way_to_fill_batches(services: dict[str, Any]) -> None:
    worker = composed("docker-compose.gpu.yml")["services"]["worker"]
    workers, tasks = (
        int(re.sub(r"\$\{\w+:-(\d+)\}", r"\1", str(value)))
        for value in (worker["scale"], worker["environment"]["WORKER_TASKS"])
    )
    serving = Serving(name="a", imgsz=640, stride=32, square=True, device="gpu")
    assert workers * tasks >= 2 * serving.max_batch * serving.instance_count


def test_every_export_is_for_the_device_of_the_composition() -> None:
    assert composed("docker-compose.gpu.yml")["services"]["export"]["environment"] == {"DEVICE": "gpu"}
    *_, last = (ROOT / "docker" / "export.sh").read_text().splitlines()
    assert last == 'exec python3 -m export --repository /models --device "$DEVICE" "$@"'  # one given later wins


@pytest.mark.parametrize("name", FILES)
def test_what_is_built_is_there(name: str) -> None:
    for service in composed(name)["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_no_serving_image_has_torch() -> None:
    for lock in ("serve.txt", "triton.txt"):
        assert not re.search(r"^(torch|ultralytics)\b", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)


def test_the_tests_share_nothing_with_a_stack_of_the_same_checkout() -> None:
    served, tested = composed("docker-compose.yml"), composed("docker-compose.test.yml")
    for part in ("services", "volumes"):
        assert not set(served[part]) & set(tested[part])


@pytest.mark.parametrize("name", [".gitignore", ".dockerignore"])
def test_keys_in_env_reach_neither_git_nor_an_image(name: str) -> None:
    assert ".env" in (ROOT / name).read_text().splitlines()
