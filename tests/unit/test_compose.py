"""The composed stack as far as it can be looked at without an engine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from export.config import Serving
from export.graph import engine
from export.options import parse
from gateway.settings import IN_FILES, load, rows

ROOT = Path(__file__).parents[2]
FILES = (
    "docker-compose.yml",
    "docker-compose.gpu.yml",
    "docker-compose.shm.yml",
    "docker-compose.test.yml",
    "docker-compose.scale.yml",
)

# Set by the images or fixed by the composition; not for people to change.
FIXED = {"HOST", "PORT", "LISTEN_FD", "METRICS_HOST", "METRICS_PORT", "WORKER_METRICS_PORT", "PROMETHEUS_MULTIPROC_DIR"}


class Strict(yaml.SafeLoader):  # type: ignore[misc]
    """As Compose v2 reads: a key that stands there twice is an error, which docker-compose 1.29 lets pass."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        assert len(names) == len(set(names)), f"line {node.start_mark.line + 1}: a key stands there twice: {names}"
        constructed: dict[Any, Any] = super().construct_mapping(node, deep)
        return constructed


Strict.add_constructor("!reset", lambda loader, node: [])


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
    assert composed("docker-compose.yml")["networks"]["back"] == {"internal": "${BACK_INTERNAL:-true}"}
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
    users = ("gateway", "worker", "webhooks")
    given = {name for each in users for name in services[each]["environment"] if not name.startswith("OTEL_")}
    assert given == {name for name, _, _ in rows()} - FIXED


def test_each_service_has_the_secrets_that_it_uses(services: dict[str, Any]) -> None:
    secrets = {"API_KEYS", "API_KEYS_FILE", "WEBHOOK_SECRET", "TRITON_KEY", "TRITON_MEMORY_KEY"}
    held = {name: secrets & set(service.get("environment", {})) for name, service in services.items()}
    assert {name: found for name, found in held.items() if found} == {
        "gateway": {"API_KEYS", "API_KEYS_FILE", "TRITON_KEY"},
        "webhooks": {"WEBHOOK_SECRET"},
        "worker": {"TRITON_MEMORY_KEY"},
        "triton": {"TRITON_KEY", "TRITON_MEMORY_KEY"},
        "export": {"TRITON_KEY"},
    }
    assert not any(
        name.startswith(("./:", ".:")) for service in services.values() for name in service.get("volumes", [])
    )


def test_the_defaults_of_the_composition_are_settings(services: dict[str, Any]) -> None:
    environment = services["gateway"]["environment"]
    defaults = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in environment.items()}
    assert load(defaults).redis_url == "redis://redis:6379/0"


def test_another_redis_or_triton_is_used_by_all_and_told_to_those_of_this_file(services: dict[str, Any]) -> None:
    for name, own in (("REDIS_URL", "redis"), ("TRITON_URL", "triton")):
        users = {each for each, service in services.items() if name in service.get("environment", {})}
        assert users >= {"worker", "webhooks", "gateway", own}
        values = {services[each]["environment"][name] for each in users - {own}}
        assert len(values) == 1 and values.pop().startswith(f"${{{name}:-")
        assert services[own]["environment"][name] == f"${{{name}:-}}"


def start_redis(folder: Path, *arguments: str, url: str = "", without: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs docker/redis.sh where each program that it may become says its name and arguments."""
    for name in {"docker-entrypoint.sh", "redis-cli", "sleep"} - {without}:
        (folder / name).write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "REDIS_URL": url}
    command = ["sh", str(ROOT / "docker" / "redis.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)


@pytest.mark.parametrize("url", ["", "redis://redis:6379/0", "redis://:secret@redis:6379/1"])
def test_the_redis_of_this_stack_starts(url: str, tmp_path: Path) -> None:
    assert start_redis(tmp_path, "--maxmemory", "1gb", url=url).stdout == "docker-entrypoint.sh --maxmemory 1gb\n"
    assert start_redis(tmp_path, "check", url=url).stdout == "redis-cli ping\n"


def test_an_image_of_redis_may_have_no_entry_point(tmp_path: Path) -> None:
    (tmp_path / "redis-server").write_text('#!/bin/sh\necho "redis-server $*"\n')
    (tmp_path / "redis-server").chmod(0o755)
    done = start_redis(tmp_path, "--maxmemory", "1gb", without="docker-entrypoint.sh")
    assert done.stdout == "redis-server --protected-mode no --dir /data --maxmemory 1gb\n"


def test_it_stays_off_where_another_is_named(tmp_path: Path) -> None:
    url = "rediss://:secret@redis.example.org:6380/0"
    done = start_redis(tmp_path, "--maxmemory", "1gb", url=url)
    assert done.stdout.splitlines() == ["redis: REDIS_URL names another Redis; this one stays off", "sleep infinity"]
    healthy = start_redis(tmp_path, "check", url=url)
    assert (healthy.returncode, healthy.stdout) == (0, "")


@pytest.mark.parametrize("url", ["redis://localhost:6379/0", "redis://:secret@127.0.0.1:6379"])
def test_a_redis_on_loopback_is_refused(url: str, tmp_path: Path) -> None:
    done = start_redis(tmp_path, "--maxmemory", "1gb", url=url)
    assert done.returncode == 1
    assert done.stderr.startswith("redis: REDIS_URL names this machine, which is each container by itself")
    assert "secret" not in done.stderr
    assert start_redis(tmp_path, "check", url=url).returncode == 1


def test_the_triton_of_this_stack_stays_off_where_another_is_named() -> None:
    environment = os.environ | {"TRITON_URL": "triton.example.org:8001"}
    healthy = ["bash", str(ROOT / "docker" / "healthcheck.sh"), "triton"]
    assert subprocess.run(healthy, env=environment, timeout=10, check=False).returncode == 0
    idle = [sys.executable, "-m", "local.container"]
    with subprocess.Popen(idle, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline().endswith("this one stays off\n")
        assert process.poll() is None
        process.terminate()


def test_the_secrets_of_the_documents_are_settings() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    example = yaml.load(page.partition("### Secrets in files")[2].split("```")[1].removeprefix("yaml"), Strict)
    files = set()
    for service in example["services"].values():
        files |= {name for name in service["environment"] if name.endswith("_FILE")}
        used = [value.rpartition("/")[2] for name, value in service["environment"].items() if name.endswith("_FILE")]
        assert sorted(used) == sorted(service.get("secrets", []))
    assert files <= {f"{name}_FILE" for name in IN_FILES} | {"API_KEYS_FILE"}
    assert set(example["services"]) == {"gateway", "worker", "webhooks", "redis", "export", "triton"}
    for ignored in (".gitignore", ".dockerignore"):
        assert "secrets" in (ROOT / ignored).read_text().replace("/", "").splitlines()


def test_memory_is_shared_between_workers_and_triton_only(services: dict[str, Any]) -> None:
    overlay = composed("docker-compose.shm.yml")
    assert {name: service["volumes"] for name, service in overlay["services"].items()} == {
        name: ["shm:/dev/shm"] for name in ("triton", "worker")
    }
    assert overlay["services"]["triton"]["environment"] == {"TRITON_HTTP_ADDRESS": "0.0.0.0"}
    assert load(overlay["services"]["worker"]["environment"]).triton_http_url == "triton:8000"
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


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("--list", "--list"),
        ("--use 2 --name a", "--use 2 --name a"),
        ("--name a --rollback", "--name a --rollback"),
        ("--unload=a", "--unload=a"),
        ("--delete 2", "--delete 2"),
        ("--weights my.pt", "--device gpu --weights my.pt"),
    ],
)
def test_a_switch_of_versions_is_for_no_device(tmp_path: Path, given: str, options: str) -> None:
    text = (ROOT / "docker" / "export.sh").read_text()
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DEVICE": "gpu"}
    command = ["sh", "-c", text[text.index('case " $* "') :], "sh", *given.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"-m export --repository /models {options}\n"
    parse(options.split())


@pytest.mark.parametrize("name", FILES)
def test_what_is_built_is_there(name: str) -> None:
    for service in composed(name)["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_image_of_triton_has_all_that_its_program_imports(tmp_path: Path) -> None:
    dockerfile = (ROOT / "docker" / "triton.Dockerfile").read_text()
    copies = [line.split()[1:] for line in dockerfile.splitlines() if re.match("COPY (local|export|gateway)", line)]
    assert len(copies) == 3
    for *sources, target in copies:
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target)
                continue
            into = tmp_path / target / Path(source).name if target.endswith("/") else tmp_path / target
            into.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, into)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-B", "-c", "import local.container"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


def test_with_several_gateways_only_the_proxy_is_published(services: dict[str, Any]) -> None:
    scaled = composed("docker-compose.scale.yml")["services"]
    assert scaled["gateway"]["ports"] == []  # !reset: Compose would add to a list
    assert scaled["proxy"]["ports"] == services["gateway"]["ports"]
    assert scaled["proxy"]["networks"] == ["front"] and "front" in services["gateway"]["networks"]
    confined = {name: scaled["proxy"][name] for name in ("read_only", "cap_drop", "security_opt")}
    assert confined == {name: services["gateway"][name] for name in confined}
