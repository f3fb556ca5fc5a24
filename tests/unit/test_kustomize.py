"""deploy/kustomize: a base that is the chart, and an overlay as the handbook has it."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.support.chart import ROOT

KUSTOMIZE = ROOT / "deploy" / "kustomize"
KUBECTL = Path(sys.executable).with_name("kubectl")


def built(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_the_base_is_the_chart() -> None:
    files: Callable[[], dict[str, str]] = runpy.run_path(str(KUSTOMIZE / "render.py"))["files"]
    there = {path.name: path.read_text() for path in (KUSTOMIZE / "base").iterdir()}
    assert there == files(), "make kustomize renews it"


def test_kustomize_takes_the_base_whole() -> None:
    texts = (path.read_text() for path in (KUSTOMIZE / "base").glob("*.yaml") if path.name != "kustomization.yaml")
    rendered = [each for text in texts for each in yaml.safe_load_all(text)]
    names = sorted((each["kind"], each["metadata"]["name"]) for each in rendered)
    assert sorted((each["kind"], each["metadata"]["name"]) for each in built(KUSTOMIZE / "base")) == names


def test_the_overlay_of_the_handbook_names_the_registry(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    example = yaml.safe_load(page.partition("## Kustomize")[2].split("```")[1].removeprefix("yaml"))
    (tmp_path / "base").symlink_to(KUSTOMIZE / "base")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(example))
    manifests = built(tmp_path / "mine")
    assert {each["metadata"]["namespace"] for each in manifests} == {"vision"}
    pods = [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]
    images = {container["image"] for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]}
    assert len(images) == 4
    assert all(each.startswith(("registry.example.org/vision/yolo-", "docker.io/library/redis:")) for each in images)
