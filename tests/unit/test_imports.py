"""Imports point down; see docs/architecture.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parents[2] / "gateway"

# Modules of one storey may import those of the storeys below, never above or beside.
WEB = {
    "__main__",
    "accept",
    "admission",
    "access",
    "app",
    "batches",
    "deepstack",
    "docs",
    "examples",
    "fetch",
    "formats",
    "guard",
    "headers",
    "limits",
    "models",
    "openapi",
    "operations",
    "parameters",
    "queuestate",
    "predictions",
    "readiness",
    "requestid",
    "responses",
    "results",
    "routes",
    "server",
    "shutdown",
    "service",
    "submission",
    "tasks",
    "uploads",
}
WORKER = {
    "worker",
    "claims",
    "jobs",
    "pipeline",
    "room",
    "sharedmemory",
    "triton",
    "decode",
    "letterbox",
    "nms",
    "annotate",
    "webhooks_worker",
    "maintenance",
    "opencv",
    "orientation",
    "colours",
}
SHARED = {
    "allocation",
    "allowed",
    "logs",
    "metrics",
    "scrape",
    "atomic",
    "rate",
    "addresses",
    "outbound",
    "queue",
    "detections",
    "images",
    "errors",
    "keys",
    "modelspec",
    "loading",
    "requests",
    "settings",
    "webhooks",
    "workers",
}


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def siblings(module: str) -> set[str]:
    return {name.split(".")[1] for name in imported(GATEWAY / f"{module}.py") if name.startswith("gateway.")}


def test_every_module_has_its_place() -> None:
    modules = {path.stem for path in GATEWAY.glob("*.py")} - {"__init__"}
    assert modules == WEB | WORKER | SHARED


@pytest.mark.parametrize(("storey", "modules"), [("web", WEB), ("worker", WORKER), ("shared", SHARED)])
def test_the_places_are_documented(storey: str, modules: set[str]) -> None:
    text = (GATEWAY.parent / "docs" / "architecture.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| {storey} |"))
    assert set(re.findall(r"`(\w+)`", row)) == modules


@pytest.mark.parametrize("module", sorted(WEB))
def test_web_never_imports_the_worker(module: str) -> None:
    assert not siblings(module) & WORKER


@pytest.mark.parametrize("module", sorted(WORKER))
def test_worker_never_imports_the_web(module: str) -> None:
    assert not siblings(module) & WEB
    assert not any(name.startswith(("starlette", "uvicorn")) for name in imported(GATEWAY / f"{module}.py"))


@pytest.mark.parametrize("module", sorted(SHARED))
def test_shared_modules_import_only_shared_ones(module: str) -> None:
    assert siblings(module) <= SHARED


@pytest.mark.parametrize("module", sorted(WEB | WORKER | SHARED))
def test_gateway_never_imports_export(module: str) -> None:
    names = imported(GATEWAY / f"{module}.py")
    assert not any(name.split(".")[0] in {"export", "local", "tests", "torch", "ultralytics"} for name in names)


def test_the_web_process_loads_no_decoder() -> None:
    code = "import sys, gateway.app; print(sorted({'cv2', 'torch', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=GATEWAY.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opencv_is_set_up_before_it_is_loaded_whatever_comes_first() -> None:
    assert [path.stem for path in sorted(GATEWAY.glob("*.py")) if "\nimport cv2\n" in path.read_text()] == []
    code = "import gateway.worker, cv2; print(cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT)"
    done = subprocess.run([sys.executable, "-c", code], cwd=GATEWAY.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
