"""deploy/helm rendered without a cluster, and the questions that tests ask of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import helm_python
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "yolov5-triton-gateway"
VALUES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}
NAME, NAMESPACE = "detect", "vision"
COMPONENT = "app.kubernetes.io/component"
Manifest = dict[str, Any]


class Container(NamedTuple):
    """A container of a pod, and whether it is one that runs before the others."""

    pod: str
    spec: Manifest
    is_first: bool


class Rendered:
    """The manifests that a release named `detect` in the namespace `vision` would have."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Raises helm_python.HelmError, as `helm install` would."""
        with helm_python.Chart.load(CHART) as chart:
            files = chart.render(dict(values), name=NAME, namespace=NAMESPACE)
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
        self.manifests: list[Manifest] = [each for text in texts for each in yaml.safe_load_all(text) if each]

    def of_kind(self, *kinds: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] in kinds]

    def one(self, kind: str, component: str) -> Manifest:
        """The manifest of this kind with this component's label."""
        (found,) = (each for each in self.of_kind(kind) if component_of(each) == component)
        return found

    def workloads(self) -> list[Manifest]:
        return self.of_kind("Deployment", "StatefulSet", "Job")

    def pods(self) -> Iterator[tuple[str, Manifest, dict[str, str]]]:
        """(component, spec of the pod, its labels)."""
        for each in self.workloads():
            template = each["spec"]["template"]
            yield component_of(each), template["spec"], template["metadata"]["labels"]

    def containers(self) -> Iterator[Container]:
        for component, spec, _ in self.pods():
            for kind in ("initContainers", "containers"):
                for container in spec.get(kind, []):
                    yield Container(component, container, kind == "initContainers")

    def selected(self, labels: Mapping[str, str]) -> list[str]:
        """The components of the pods that these labels select."""
        return [component for component, _, own in self.pods() if labels.items() <= own.items()]

    def ports(self, component: str) -> dict[str, int]:
        """The named ports of a component's pods."""
        found = (each.spec.get("ports", []) for each in self.containers() if each.pod == component)
        return {port["name"]: port["containerPort"] for ports in found for port in ports}

    def environment(self, component: str) -> dict[str, str]:
        """What the main container of a component is told; a value from a Secret is that Secret's name."""
        (spec, *_) = (each.spec for each in self.containers() if each.pod == component and not each.is_first)
        found: dict[str, str] = {}
        for source in spec.get("envFrom", []):
            (config,) = (each for each in self.of_kind("ConfigMap") if named(each) == source["configMapRef"]["name"])
            found |= config["data"]
        for each in spec.get("env", []):
            found[each["name"]] = each["value"] if "value" in each else each["valueFrom"]["secretKeyRef"]["name"]
        return found


def component_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["labels"][COMPONENT])


def named(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def refusal(values: Mapping[str, Any]) -> str:
    """What helm says of values that it does not take."""
    try:
        Rendered(values)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("these values were taken")
