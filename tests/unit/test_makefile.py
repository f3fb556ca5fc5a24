"""What is given to make reaches the command as it stands."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from export.options import SWITCHES, Options

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
    done = made(project, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def made(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *arguments]
    outer = {"MODEL", "WEIGHTS", "PORT", "WORKERS", "REDIS_URL", "ARGS", "MAKEFLAGS", "MAKELEVEL"}  # of `make test`
    settings = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(command, cwd=project, env=settings, capture_output=True, text=True, timeout=60)


def refused(project: Path, *arguments: str) -> str:
    done = made(project, *arguments)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1, done
    return done.stderr


@needs_make
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_exported(project: Path, name: str) -> None:
    assert printed(project, "export-model", f"WEIGHTS={name}") == ["-m", "export", f"--weights={name}"]
    assert not (project / "harm").exists()


@needs_make
@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("doctor", "TRITON_URL=host:1"),
        ("export-model", "TRITON_URL=host:1"),
        ("evaluate", "METRICS_URL=http://host"),
        ("run", "API_KEYS=a$b 'c'"),  # ignored, they would open the service
    ],
)
def test_settings_reach_the_program(project: Path, target: str, given: str) -> None:
    (project / "docs").mkdir()
    (project / "docs" / "settings.md").write_text("`METRICS_URL` `API_KEYS`")
    (project / "requirements" / "triton.txt").touch()
    name, _, value = given.partition("=")
    (project / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\necho "${name}"\n')
    shutil.copytree(project / ".venv", project / ".venv-triton")
    assert printed(project, target, given)[-1] == value


@needs_make
def test_only_what_is_given_to_make_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NAME", "LIST", "SERVED_ONLY", "IMGSZ", "DATA", "REPOSITORY"):
        monkeypatch.setenv(name, "of the shell")
    assert printed(project, "export-model", "DEVICE=gpu") == ["-m", "export", "--device=gpu"]
    assert printed(project, "evaluate", "SPLIT=val") == ["-m", "evaluation", "--split=val"]
    assert printed(project, "doctor", "MODEL=a") == ["-m", "doctor", "--model=a"]


@needs_make
@pytest.mark.parametrize("option", ["NAMES", "DATA", "NAME", "REPOSITORY"])
def test_every_value_is_taken_as_it_stands(project: Path, option: str) -> None:
    target, module = ("evaluate", "evaluation") if option == "DATA" else ("export-model", "export")
    text = "a$b'$(shell touch harm)"
    assert printed(project, target, f"{option}={text}") == ["-m", module, f"--{option.lower()}={text}"]
    assert not (project / "harm").exists()


@needs_make
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run IMGSZ=320", "`make run` takes no IMGSZ=; export with it first: `make export-model IMGSZ=...`"),
        ("run KEEP=1", "`make run` takes no KEEP=; export with it first"),
        ("run NAME=a", "takes no NAME=; its MODEL= is the name"),
        ("run USE=2", "takes no USE=; it is for `make export-model`"),
        ("run REPOSITORY=a", "takes no REPOSITORY=; MODEL_REPOSITORY= is the setting"),
        ("run TRITON_URL=a:1", "takes no TRITON_URL=; it is for"),
        ("run DATA=a", "takes no DATA=; it is for `make gpu-check` `make evaluate`"),
        ("evaluate NAME=a DATA=b", "`make evaluate` takes no NAME=; its MODEL= is"),
        ("evaluate DATA=b IMGSZ=320", "takes no IMGSZ=; it is for `make export-model`"),
        ("doctor NAME=a", "`make doctor` takes no NAME=; its MODEL= is"),
        ("doctor WEIGHTS=a.pt", "`make doctor` takes no WEIGHTS=; it is for"),
        ("export-model DATA=a", "`make export-model` takes no DATA=; it is for"),
        ("check MODEL=a", "`make check` takes no MODEL="),
    ],
)
def test_an_option_of_another_target_is_refused(project: Path, arguments: str, said: str) -> None:
    assert said in refused(project, *arguments.split())


@needs_make
def test_an_option_is_for_any_of_the_targets(project: Path) -> None:
    assert printed(project, "export-model", "doctor", "IMGSZ=320", "MODEL=a") == [
        *("-m", "export", "--model=a", "--imgsz=320", "-m", "doctor", "--model=a")
    ]


@needs_make
def test_an_empty_option_counts_as_not_given(project: Path) -> None:
    assert printed(project, "doctor", "IMGSZ=") == ["-m", "doctor"]


@needs_make
@pytest.mark.parametrize("name", ["imgsz", "IMGSIZE", "weights"])
def test_an_option_that_nobody_knows_is_refused(project: Path, name: str) -> None:
    (project / "docs").mkdir()
    (project / "docs" / "settings.md").write_text("`IMAGE_TTL` and imgsz and weights")
    assert f"knows no {name}=; its options are MODEL WEIGHTS NAME" in refused(project, "export-model", f"{name}=3")
    assert printed(project, "doctor", "IMAGE_TTL=5", "http_proxy=a") == ["-m", "doctor"]


@needs_make
@pytest.mark.parametrize("target", ["run", "evaluate", "gpu-check", "export-model"])
def test_the_model_of_weights_has_the_name_of_their_export(project: Path, target: str) -> None:
    shutil.copytree(MAKEFILE.parent / "export", project / "export")
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$MODEL" "$WEIGHTS" "$EXPORT_NAMES" "$@"\n')
    (project / ".venv-triton" / "bin").mkdir(parents=True)
    shutil.copy(python, project / ".venv-triton" / "bin")
    (project / "requirements" / "triton.txt").touch()
    (project / ".venv-triton" / ".ready").touch()
    weights = "WEIGHTS=a/my model (1).pt"
    if target == "export-model":  # it makes the name itself, unless it is given one
        assert printed(project, target, weights)[3:] == ["-m", "export", f"--weights={weights[8:]}"]
        return
    assert printed(project, target, weights)[0] == "my-model-1"
    assert printed(project, target, weights, "MODEL=other")[0] == "other"
    assert printed(project, target)[0] == "yolov5n"
    assert "no model name can be made of" in refused(project, target, "WEIGHTS=\u65e5\u672c.pt")
    if target == "run":
        assert printed(project, target, weights, "NAMES=a,b")[1:3] == [weights[8:], "a,b"]
    if target == "gpu-check":
        assert "--model=my-model-1" in printed(project, target, weights)


def test_every_option_of_an_export_is_one_of_make() -> None:
    line = next(line for line in MAKEFILE.read_text().splitlines() if line.startswith("OF_AN_EXPORT"))
    options = {name.lower() for name in line.split()[2:]}
    others = {"model", "weights", "name", "names", "repository", *SWITCHES}
    assert options | others == {field.name for field in dataclasses.fields(Options)}
