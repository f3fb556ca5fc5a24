"""What is given to make reaches the command as it stands."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
NAMES = [
    *("plain.pt", "-odd.pt", "two words.pt", "it's.pt", 'say "a".pt', "a$b.pt", "模型.pt", "~/a.pt", "a=b.pt", "*.pt"),
    *("a:b.pt", "a%b.pt", "#1;&|.pt", "a\\b.pt", "$(shell touch harm).pt", "`touch harm`.pt", "'$(touch harm)'.pt"),
]

needs_make = pytest.mark.skipif(not MAKEFILE.exists() or shutil.which("make") is None, reason="no make here")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile with a Python that prints its arguments."""
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def printed(project: Path, *arguments: str) -> list[str]:
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_make
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_exported(project: Path, name: str) -> None:
    assert printed(project, "export-model", f"WEIGHTS={name}") == ["-m", "export", f"--weights={name}"]
    assert not (project / "harm").exists()


@needs_make
def test_only_what_is_given_to_make_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "of the shell")
    assert printed(project, "export-model", "DEVICE=gpu") == ["-m", "export", "--device=gpu"]
