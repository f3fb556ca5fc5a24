"""deploy/helm as far as it can be looked at without a cluster: what holds for every values file."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

import gateway
from tests.support.chart import CHART, NAMESPACE, ROOT, VALUES, Manifest, Rendered, component_of, named

CRDS = json.loads((ROOT / "tests" / "support" / "crds.json").read_text())["schemas"]
KUBERNETES = ("1.28.0", "1.37.0")  # the oldest that the chart takes, and the newest whose schemas there are
PINNED = re.compile(r"^[a-z0-9./-]+(:v?\d+(\.\d+)*([.-][\w.-]+)?|@sha256:[0-9a-f]{64})$")


@pytest.fixture(scope="module", params=VALUES)
def chart(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(VALUES[request.param])


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_wrong(name: str) -> None:
    report = helm_python.lint(CHART, VALUES[name], strict=True, namespace=NAMESPACE)
    assert [each for each in report["messages"] if each["severity"] >= 2] == [] and not report["errors"]


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (gateway.__version__, gateway.__version__)


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_fits_its_schema(chart: Rendered, version: str) -> None:
    for each in chart.manifests:
        if schema := CRDS.get(f"{each['apiVersion']}/{each['kind']}"):
            jsonschema.validate(each["spec"], closed(schema))
        else:
            kubernetes_validate.validate(each, version, strict=True)


def closed(schema: Any) -> Any:
    """The same schema, and no name that it does not have: a cluster drops what it does not know without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    own = {"additionalProperties": False} if "properties" in schema and "additionalProperties" not in schema else {}
    return {name: closed(each) for name, each in schema.items()} | own


def test_a_name_that_no_schema_has_is_found() -> None:
    service = Rendered({}).of_kind("Service")[0]
    service["spec"]["port"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="port"):
        kubernetes_validate.validate(service, KUBERNETES[0], strict=True)
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        schema = closed(CRDS["keda.sh/v1alpha1/ScaledObject"])
        jsonschema.validate({"scaleTargetRef": {"name": "a"}, "triggers": [], "minReplicas": 1}, schema)


def test_every_image_is_pinned(chart: Rendered) -> None:
    for each in chart.containers():
        assert PINNED.match(each.spec["image"]) and ":latest" not in each.spec["image"], each.spec["image"]


def test_images_are_those_that_compose_builds() -> None:
    services = [
        service
        for file in ("docker-compose.yml", "docker-compose.gpu.yml")
        for service in yaml.safe_load((ROOT / file).read_text())["services"].values()
    ]
    built = {service["image"] for service in services if service.get("image", "").startswith("yolo-")}
    images = yaml.safe_load((CHART / "values.yaml").read_text())["images"]
    own = {image["repository"] for image in images.values() if isinstance(image, dict) and not image["tag"]}
    assert own == built


def test_every_container_is_bounded(chart: Rendered) -> None:
    for each in chart.containers():
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(each.spec["resources"][kind]), each.spec["name"]


def test_pods_are_restricted(chart: Rendered) -> None:
    """As the Pod Security Standard `restricted` wants it, with a read-only root and no token."""
    for _, spec, _ in chart.pods():
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        allowed = {"emptyDir", "projected", "persistentVolumeClaim", "name"}
        assert all(set(volume) <= allowed for volume in spec.get("volumes", []))
    for each in chart.containers():
        assert each.spec["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all("hostPort" not in port for port in each.spec.get("ports", []))


def test_what_is_mounted_is_there(chart: Rendered) -> None:
    claims = {named(each) for each in chart.of_kind("PersistentVolumeClaim")}
    given = {"weights"}  # by the values
    for workload in chart.workloads():
        spec = workload["spec"]["template"]["spec"]
        kept = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= volumes.keys() | kept, (named(workload), container["name"])
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims | given


def test_probes_neither_kill_for_others_nor_take_out_all(chart: Rendered) -> None:
    for each in chart.containers():
        if each.is_first or each.pod == "export":
            continue
        assert {"livenessProbe", "readinessProbe"} <= each.spec.keys(), each.pod
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = each.spec.get(name, {})
            if "httpGet" in probe:
                assert probe["httpGet"]["port"] in chart.ports(each.pod)
            assert not probe or probe["timeoutSeconds"] >= 5, "Redis is asked for 2 s"
    gateway_container, worker = (
        next(each.spec for each in chart.containers() if each.pod == pod) for pod in ("gateway", "worker")
    )
    paths = {name: gateway_container[name]["httpGet"]["path"] for name in gateway_container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert worker["livenessProbe"]["httpGet"]["path"] == "/metrics", "an outage of Redis ends no worker"


def test_services_reach_the_pods_that_they_are_for(chart: Rendered) -> None:
    for service in chart.of_kind("Service"):
        components = set(chart.selected(service["spec"]["selector"]))
        assert components == {component_of(service)}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in chart.ports(component_of(service)), named(service)


def test_whatever_selects_pods_finds_some(chart: Rendered) -> None:
    services = {named(each): each for each in chart.of_kind("Service")}
    for each in chart.of_kind("PodDisruptionBudget", "PodMonitor"):
        selector = each["spec"]["selector"]["matchLabels"]
        assert set(chart.selected(selector)) == {component_of(each)}
    for each in chart.of_kind("ServiceMonitor"):
        selector = each["spec"]["selector"]["matchLabels"].items()
        (service,) = (one for one in services.values() if selector <= one["metadata"]["labels"].items())
        assert {end["port"] for end in each["spec"]["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    for each in chart.of_kind("PodMonitor"):
        assert {end["port"] for end in each["spec"]["podMetricsEndpoints"]} <= chart.ports(component_of(each)).keys()
    for workload in chart.workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        selector = workload["spec"].get("selector", {}).get("matchLabels", {})
        assert selector.items() <= labels.items()
        for spread in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_no_two_workloads_share_their_pods(chart: Rendered) -> None:
    for workload in chart.of_kind("Deployment", "StatefulSet"):
        assert len(chart.selected(workload["spec"]["selector"]["matchLabels"])) == 1, named(workload)


def test_what_comes_from_outside_reaches_the_gateway(chart: Rendered) -> None:
    ports = {named(each): {port["name"]: port["port"] for port in each["spec"]["ports"]} for each in services(chart)}
    for each in chart.of_kind("Ingress"):
        (rule,) = each["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in ports[backend["name"]]
    for each in chart.of_kind("HTTPRoute"):
        (backend,) = each["spec"]["rules"][0]["backendRefs"]
        assert backend["port"] in ports[backend["name"]].values()


def services(chart: Rendered) -> list[Manifest]:
    return [each for each in chart.of_kind("Service") if component_of(each) == "gateway"]


def test_no_secret_is_written_anywhere(chart: Rendered) -> None:
    assert chart.of_kind("Secret") == []


def test_gateways_survive_a_node_that_is_drained(chart: Rendered) -> None:
    deployment, budget = chart.one("Deployment", "gateway")["spec"], chart.one("PodDisruptionBudget", "gateway")
    assert deployment["replicas"] >= 2 and budget["spec"]["minAvailable"] < deployment["replicas"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def test_the_handbook_has_every_value() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for section, below in values.items():
        for name in below:
            assert f"`{section}.{name}" in page or (section == "settings"), f"{section}.{name}"


def test_redis_is_set_as_the_documents_say_it_must_be() -> None:
    (redis,) = (each.spec for each in Rendered({}).containers() if each.pod == "redis")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    words = shlex.split(compose.replace("${REDIS_MEMORY:-1gb}", "1gb"))
    wanted = dict(zip(words[::2], words[1::2], strict=True))
    given = dict(zip(redis["args"][::2], redis["args"][1::2], strict=True))
    assert given == wanted | {"--dir": "/data", "--protected-mode": "no"}


def test_files_of_the_chart_are_the_ones_that_are_tested() -> None:
    alerts = CHART / "files" / "alerts.yml"
    assert alerts.is_symlink() and alerts.resolve() == Path(ROOT / "deploy" / "prometheus" / "alerts.yml").resolve()
