"""What the wheel nvidia-pytriton holds, made ready for this Python: the server, its environment, its backends.

`python -m local.wheel` says whether this Python can run it, before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from local.errors import LocalError

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-triton"
BACKEND = Path(__file__).resolve().parent / "backends" / "onnxruntime"
CONTRACT = ROOT / "export" / "contract.py"  # what the real backend asks, for the model.py next to it
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment() -> dict[str, str]:
    """The stub embeds Python: it finds the environment through PATH and libpython through LD_LIBRARY_PATH."""
    libraries = [
        str(package().parent / "nvidia_pytriton.libs"),
        str(libpython().parent),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {
        **inherited,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "VIRTUAL_ENV": str(VENV),
    }


def package() -> Path:
    found = VENV / "lib" / f"python{PYTHON}" / "site-packages" / "pytriton"
    if not found.is_dir():
        raise LocalError(f"Triton is not installed for Python {PYTHON} ({VENV}); run `make setup`")
    return found


def libpython() -> Path:
    """The shared library of this Python. Static builds have none, and some distributions ship it separately."""
    name = f"libpython{PYTHON}.so.1.0"
    variables = sysconfig.get_config_vars()
    lib_dir = Path(variables["LIBDIR"])
    for folder in (lib_dir, lib_dir / variables.get("MULTIARCH", ""), Path(sys.base_prefix) / "lib"):
        if (folder / name).exists():
            return folder / name
    raise LocalError(
        f"Triton needs {name}, which this Python ({sys.base_prefix}) has not: install it (Debian, Ubuntu: "
        f"`apt install libpython{PYTHON}`; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared), then `make clean run`"
    )


def compose_backends(target: Path) -> Path:
    """A backend directory: Triton's Python backend with this Python's stub, and ours, named `onnxruntime`."""
    server = package() / "tritonserver"
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        raise LocalError(f"Triton's wheel has no Python backend for Python {PYTHON}; use 3.11, 3.12 or 3.13")
    for source in ((server / "backends" / "python").iterdir(), [stub]):
        for file in source:
            if file.is_file():
                copy(file, target / "python" / file.name)
    for file in (BACKEND / "model.py", CONTRACT):
        copy(file, target / BACKEND.name / file.name)
    return target


def copy(source: Path, path: Path) -> None:
    """Copies, not links: Triton refuses a backend library outside its directory."""
    if path.is_file() and same(source.stat(), path.stat()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: another stack may be starting from the same folder.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.copy2(source, aside)
    aside.chmod(0o755)
    aside.replace(path)


def same(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


if __name__ == "__main__":
    try:
        libpython()
    except LocalError as error:
        sys.exit(str(error))
