"""Writes deploy/kustomize/base: the chart with its defaults, as a release `yolo`. `make kustomize` runs it."""

import sys
from pathlib import Path
from typing import Any

import helm_python
import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "yolov5-triton-gateway"
OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def files() -> dict[str, str]:
    """The files of the base by their names."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render({}, name="yolo", namespace="default")
    found = {}
    for path, text in sorted(rendered.items()):
        manifests = [without_helm(each) for each in yaml.safe_load_all(text) if each] if path.endswith(".yaml") else []
        if manifests:
            found[Path(path).name] = yaml.safe_dump_all(manifests, sort_keys=False, width=120)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(found),
    }
    return found | {"kustomization.yaml": yaml.safe_dump(kustomization, sort_keys=False)}


def without_helm(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same without the labels that say that helm manages it."""
    templates = [manifest, manifest.get("spec", {}).get("template", {})]
    for each in templates:
        for name in OF_HELM:
            each.get("metadata", {}).get("labels", {}).pop(name, None)
    manifest["metadata"].get("annotations", {}).pop("helm.sh/resource-policy", None)
    return manifest


def main() -> int:
    for path in (HERE / "base").glob("*.yaml"):
        path.unlink()
    for name, text in files().items():
        (HERE / "base" / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
