"""Imports point down: the tree of gateway/ is the architecture. docs/architecture.md has the same table."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parents[2] / "gateway"

# What each package may import of this one, besides itself and the modules at the root. `package.module` allows one.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "telemetry": set(),
    "security": set(),
    "outbound": set(),
    "triton": {"telemetry"},
    "vision": set(),
    "server": {"telemetry"},
    "webhooks": {"telemetry", "outbound"},
    "queue": {"telemetry", "webhooks"},
    "openapi": {"server"},
    "page": {"vision.colours"},
    "web": {
        *("telemetry", "security", "outbound", "server", "queue", "openapi", "page"),
        *("triton.connection", "triton.spec", "triton.loading", "triton.catalogue", "triton.several", "vision.header"),
    },
    "worker": {"telemetry", "triton", "vision", "queue"},
}
# The tools around the gateway, and which of the others each may import.
TOOLS = {
    "export": {"gateway"},
    "doctor": {"gateway", "export"},
    "evaluation": {"gateway", "export"},
    "local": {"gateway"},
}
COMMANDS = {"__main__": {"security", "webhooks.signing"}}  # `python -m gateway`
MODULES = sorted(path for path in GATEWAY.rglob("*.py"))


def place(module: Path) -> str:
    """The package below gateway/ that a module is in; empty for the root."""
    first, *rest = module.relative_to(GATEWAY).parts
    return first if rest else ""


def imported(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def siblings(module: Path) -> set[str]:
    """`package.module` of what a module imports from packages other than its own; the root does not count."""
    found = {
        tuple(name.split(".")[1:3])
        for name in imported(module)
        if name.count(".") > 1 and name.startswith("gateway.") and (GATEWAY / name.split(".")[1]).is_dir()
    }
    modules = {".".join(each) for each in found if (GATEWAY / each[0] / f"{each[1]}.py").is_file()}
    return {name for name in modules if name.split(".")[0] != place(module)}


def test_every_package_is_in_the_table() -> None:
    assert {place(module) for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_a_module_imports_what_its_package_may(module: Path) -> None:
    allowed = MAY_IMPORT[place(module)] | (COMMANDS.get(module.stem, set()) if not place(module) else set())
    assert [name for name in sorted(siblings(module)) if not {name, name.split(".")[0]} & allowed] == []


def test_no_arrow_is_in_the_table_for_nothing() -> None:
    for package, may in MAY_IMPORT.items():
        used = {name for module in MODULES if place(module) == package for name in siblings(module)}
        assert {arrow for arrow in may if not any(arrow in (name, name.split(".")[0]) for name in used)} == set(), (
            package
        )


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_gateway_never_imports_the_tools_around_it(module: Path) -> None:
    first = {name.split(".")[0] for name in imported(module)}
    assert not first & {"export", "local", "tests", "benchmarks", "reliability", "torch", "ultralytics"}


def test_endpoints_are_no_library_for_each_other() -> None:
    for module in (GATEWAY / "web" / "endpoints").glob("*.py"):
        assert not any(name.startswith("gateway.web.endpoints") for name in imported(module)), module


def test_a_package_is_more_than_its_modules_only_in_the_tree() -> None:
    """An __init__.py holds one sentence: nobody imports a name by two paths."""
    for path in GATEWAY.rglob("*/__init__.py"):
        assert len(ast.parse(path.read_text()).body) == 1, path


def test_the_table_is_documented() -> None:
    text = (GATEWAY.parent / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \|([^|]*)\|", text, re.MULTILINE)
    documented = {package: set(re.findall(r"`([\w.]+)`", may)) for package, may in rows}
    assert documented == {package: may for package, may in (MAY_IMPORT | TOOLS).items() if package}


def test_the_web_process_loads_no_decoder_and_the_worker_no_web_server() -> None:
    def loaded(module: str) -> str:
        asked = {"cv2", "torch", "onnxruntime", "starlette", "uvicorn", "gateway.triton.client"}
        code = f"import sys, {module}; print(*sorted({asked} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=GATEWAY.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert loaded("gateway.web.app") == "starlette uvicorn"
    assert loaded("gateway.worker.loop") == "cv2 gateway.triton.client"


def test_opencv_is_set_up_before_it_is_loaded_whatever_comes_first() -> None:
    assert [path.stem for path in MODULES if "\nimport cv2\n" in path.read_text()] == []
    code = (
        "import gateway.worker.loop, cv2; print(cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=GATEWAY.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_imports_what_it_may(tool: str) -> None:
    root = GATEWAY.parent
    folders = {path.parent.name for path in root.glob("*/__init__.py")}
    for module in (root / tool).rglob("*.py"):
        first = {name.split(".")[0] for name in imported(module)}
        assert (first & folders) - TOOLS[tool] - {tool} == set(), module


def test_doctor_needs_no_torch() -> None:
    code = "import sys, doctor.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=GATEWAY.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
