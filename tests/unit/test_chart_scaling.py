"""deploy/helm: how its parts scale, stop, are placed and are watched."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.redis_names import OPEN_KEY
from tests.support.chart import NAME, NAMESPACE, VALUES, Rendered, component_of, named, refusal
from tests.unit.test_alerts import PROMETHEUS, promtool

SCALED = Rendered(VALUES["gpu"])


def trigger(component: str) -> dict[str, Any]:
    scaled = next(each for each in SCALED.of_kind("ScaledObject") if component_of(each) == component)
    (found,) = scaled["spec"]["triggers"]
    return dict(found)


def test_workers_scale_by_the_ledger_of_open_tasks() -> None:
    found = trigger("worker")
    assert (found["type"], found["metricType"], found["metadata"]["listName"]) == ("redis", "AverageValue", OPEN_KEY)
    assert found["metadata"]["address"] == f"{NAME}-yolo-redis.{NAMESPACE}.svc:6379", "KEDA is in another namespace"
    (authentication,) = SCALED.of_kind("TriggerAuthentication")
    assert found["authenticationRef"] == {"name": named(authentication)}
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "password", "name": "yolo-redis", "key": "password"}
    ]


def test_workers_scale_by_the_ledger_of_their_own_stack() -> None:
    chart = Rendered({**VALUES["gpu"], "settings": {**VALUES["gpu"].get("settings", {}), "REDIS_PREFIX": "shop"}})
    (scaled,) = (each for each in chart.of_kind("ScaledObject") if component_of(each) == "worker")
    assert scaled["spec"]["triggers"][0]["metadata"]["listName"] == f"shop:{OPEN_KEY}"
    for component in ("gateway", "worker", "webhooks"):
        assert chart.environment(component)["REDIS_PREFIX"] == "shop"


def test_what_scales_has_no_number_of_its_own() -> None:
    """`helm upgrade` would otherwise take the pods away at the peak."""
    deployments = {named(each): each for each in SCALED.of_kind("Deployment")}
    scaled = SCALED.of_kind("ScaledObject")
    assert len(scaled) == 3
    for each in scaled:
        assert "replicas" not in deployments[each["spec"]["scaleTargetRef"]["name"]]["spec"]
    assert "replicas" in deployments[f"{NAME}-yolo-gateway"]["spec"]


def test_who_cannot_be_asked_takes_no_pod_away() -> None:
    for each in SCALED.of_kind("ScaledObject"):
        spec = each["spec"]
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher" and spec["fallback"]["replicas"] >= 1
        assert spec["triggers"][0]["metricType"] == "AverageValue", "KEDA falls back for these only"
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 60
    assert trigger("triton")["metadata"]["ignoreNullValues"] == "false"


def test_tritons_never_scale_to_none_and_workers_may() -> None:
    least = {component_of(each): each["spec"]["minReplicaCount"] for each in SCALED.of_kind("ScaledObject")}
    assert least == {"worker": 0, "triton": 1}
    assert "/triton/autoscaling/minReplicas" in refusal({"triton": {"autoscaling": {"minReplicas": 0}}})


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("", []),
        ("nv_inference_queue_duration_us{%s} 0+0x20", [("{}", 0)]),
        ("nv_inference_queue_duration_us{%s} 0+90000000x20", [("{}", 6)]),
    ],
    ids=["nobody knows", "no traffic", "six requests wait on average"],
)
def test_tritons_scale_by_the_time_in_their_queue(
    series: str, expected: list[tuple[str, float]], tmp_path: Path
) -> None:
    query = next(
        each["spec"]["triggers"][0]["metadata"]["query"]
        for each in SCALED.of_kind("ScaledObject")
        if named(each).endswith("-main")
    )
    labels = f'namespace="{NAMESPACE}",pod="{NAME}-yolo-triton-main-6c9-x",model="yolov5n"'
    other = labels.replace("-main-", "-large-")
    name, _, values = (series % labels).rpartition(" ") if series else ("", "", "")
    given = [{"series": name, "values": values}] if series else []
    given.append({"series": f"nv_inference_queue_duration_us{{{other}}}", "values": "0+99x20"})
    samples = [{"labels": text, "value": value} for text, value in expected]
    test = {
        "interval": "15s",
        "input_series": given,
        "promql_expr_test": [{"expr": query, "eval_time": "3m", "exp_samples": samples}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
    promtool("test", "rules", str(tmp_path / "test.yml"))


@pytest.mark.parametrize(
    ("component", "settings", "least"),
    [
        ("gateway", {}, 10 + 20),
        ("gateway", {"STOP_TIMEOUT": 40.5}, 10 + 40.5),
        ("worker", {}, 180),
        ("worker", {"TASK_TIMEOUT": 600}, 600),
        ("webhooks", {"WEBHOOK_TIMEOUT": "30"}, 30),
    ],
)
def test_pods_have_the_time_to_end_what_they_do(component: str, settings: dict[str, Any], least: float) -> None:
    chart = Rendered({"settings": settings})
    assert chart.one("Deployment", component)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > least


def test_a_gateway_answers_while_load_balancers_forget_it() -> None:
    (gateway,) = (each.spec for each in SCALED.containers() if each.pod == "gateway")
    assert gateway["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]


def test_on_gpus_the_old_triton_leaves_first_and_each_type_keeps_its_engines() -> None:
    tritons = [each for each in SCALED.of_kind("Deployment") if component_of(each) == "triton"]
    claims = set()
    for each in tritons:
        assert each["spec"]["strategy"] == {"type": "Recreate"}
        spec = each["spec"]["template"]["spec"]
        assert "nvidia.com/gpu" in spec["containers"][0]["resources"]["limits"] and spec["nodeSelector"]
        claims |= {
            volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"] if volume["name"] == "engines"
        }
    assert len(tritons) == len(claims) == 2
    (service,) = (each for each in SCALED.of_kind("Service") if component_of(each) == "triton")
    assert service["spec"]["clusterIP"] == "None", "each has an address of its own"
    assert SCALED.environment("worker")["TRITON_URL"] == f"{named(service)}:8001"
    assert SCALED.environment("triton")["TRITON_CONNECTION_SECONDS"] == "60"


@pytest.mark.parametrize("modes", [["ReadWriteOnce"], ["ReadWriteMany"]])
def test_a_volume_of_one_node_is_used_there_only(modes: list[str]) -> None:
    """Triton waits for the model with the volume mounted: an export on another node would never get it."""
    chart = Rendered({"triton": {"models": {"claim": {"accessModes": modes}}}})
    affinity = chart.one("Job", "export")["spec"]["template"]["spec"].get("affinity")
    strategy = chart.one("Deployment", "triton")["spec"]["strategy"]
    if modes == ["ReadWriteMany"]:
        assert affinity is None and "rollingUpdate" in strategy
        return
    (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert set(chart.selected(term["labelSelector"]["matchLabels"])) == {"triton"}
    assert term["topologyKey"] == "kubernetes.io/hostname" and strategy == {"type": "Recreate"}


def test_alerts_are_the_tested_ones() -> None:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    (rule,) = Rendered({"monitoring": {"enabled": True}}).of_kind("PrometheusRule")
    assert rule["spec"]["groups"] == groups
    names = {each["alert"] for each in groups[0]["rules"]}
    (scaled,) = SCALED.of_kind("PrometheusRule")
    left = {each["alert"] for each in scaled["spec"]["groups"][0]["rules"]}
    assert names - left == {"YoloInstancesFewer"}, "an autoscaler takes workers away"


def test_jobs_have_the_names_that_alerts_and_dashboard_know() -> None:
    monitors = SCALED.of_kind("ServiceMonitor", "PodMonitor")
    assert {each["spec"]["jobLabel"] for each in monitors} == {"app.kubernetes.io/component"}
    known = set(re.findall(r'job(?:=|=~)"([a-z|]+)"', (PROMETHEUS / "alerts.yml").read_text()))
    assert {component_of(each) for each in monitors} == {job for jobs in known for job in jobs.split("|")}
