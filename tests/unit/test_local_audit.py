"""`make audit` with a stand-in for pip-audit that says what the real one says."""

import json
import sys
from pathlib import Path

import pytest

from local.audit import main, pins, rounds

CLEAN = {"name": "numpy", "version": "2.5.5", "vulns": []}
FLAWED = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}, {"id": "PYSEC-2", "fix_versions": []}],
}
SKIPPED = {"name": "uvloop", "skip_reason": "Dependency not found on PyPI and could not be audited: uvloop (0.23.0)"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "all.txt"
    path.write_text(
        "numpy==2.5.5 ; python_version > '3.11' \\\n    --hash=sha256:00\n    # via x\npillow==1.0 \\\n    --hash=a\n"
    )
    return path


def saying(folder: Path, dependencies: object, complaint: str = "", only: str = "") -> str:
    """A pip-audit that answers so, to the service `only` if one is named, and complains to others."""
    path = folder / "pip-audit"
    answer = json.dumps({"dependencies": dependencies, "fixes": []}) if dependencies is not None else ""
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if {only!r} in sys.argv or not {only!r}: print({answer!r})\n"
        f"print({complaint!r}, file=sys.stderr)\n"
    )
    path.chmod(0o755)
    return str(path)


def test_nothing_known_is_a_success(tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pip-audit", saying(tmp_path, [CLEAN]), "--pin", "torch==2.13.0", str(lock)]) == 0
    assert capsys.readouterr().out == "audit: 1 packages, nothing is known against any\n"


def test_findings_are_listed(tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pip-audit", saying(tmp_path, [CLEAN, FLAWED]), str(lock)]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "pillow 1.0: PYSEC-1, fixed in 1.1, 2.0",
        "pillow 1.0: PYSEC-2, fixed in none yet",
    ]
    assert said.err == "audit: 2 findings in 2 packages\n"


@pytest.mark.parametrize(
    ("dependencies", "complaint"),
    [([CLEAN, SKIPPED], ""), (None, "Traceback\nrequests.exceptions.ConnectionError: no network\n"), ([], "")],
    ids=["skipped", "no network", "empty"],
)
def test_what_could_not_be_asked_is_no_success(
    tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str], dependencies: object, complaint: str
) -> None:
    assert main(["--pip-audit", saying(tmp_path, dependencies, complaint), str(lock)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("audit: not done, ") and said.count("\n") == 1
    assert "pypi: " in said and "osv: " in said


def test_a_second_database_is_asked(tmp_path: Path, lock: Path) -> None:
    assert main(["--pip-audit", saying(tmp_path, [CLEAN], "no network", only="osv"), str(lock)]) == 0


def test_a_missing_command_is_told(tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pip-audit", str(tmp_path / "none"), str(lock)]) == 2
    assert "No such file" in capsys.readouterr().err


def test_pins_are_read_from_a_lock_file(lock: Path) -> None:
    assert pins(lock.read_text()) == ["numpy==2.5.5", "pillow==1.0"]


def test_versions_of_one_package_are_asked_about_apart() -> None:
    assert rounds({"numpy==1.0", "numpy==2.0", "NumPy==3.0", "pillow==1.0"}) == [
        ["NumPy==3.0", "pillow==1.0"],
        ["numpy==1.0"],
        ["numpy==2.0"],
    ]
