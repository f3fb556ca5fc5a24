"""Starting Triton from its wheel: what is decided before the server runs."""

import os
from pathlib import Path

import pytest

from local import triton, wheel
from local.errors import LocalError


def model(repository: Path, name: str, file: str = "1/model.onnx") -> None:
    path = repository / name / file
    path.parent.mkdir(parents=True)
    path.touch()
    (repository / name / "config.pbtxt").touch()


def test_models_are_those_with_a_config_and_a_file(tmp_path: Path) -> None:
    model(tmp_path, "served")
    model(tmp_path, "renamed", "12/best.onnx")
    model(tmp_path, "engine", "1/model.plan")
    model(tmp_path, "no-version", "latest/model.onnx")
    model(tmp_path, "put-away", "1.old/model.onnx")
    (tmp_path / "only-config").mkdir()
    (tmp_path / "only-config" / "config.pbtxt").touch()
    assert triton.models(tmp_path) == ["renamed", "served"]


def test_a_config_that_is_none_is_named_and_not_loaded(tmp_path: Path) -> None:
    for name in ("directory", "link", "missing", "out", "well"):
        model(tmp_path, name)
    for name in ("directory", "link", "missing", "out"):
        (tmp_path / name / "config.pbtxt").unlink()
    (tmp_path / "directory" / "config.pbtxt").mkdir()  # Triton dies of it when it is asked to load the model
    (tmp_path / "link" / "config.pbtxt").symlink_to("nowhere")
    (tmp_path / "out" / "config.pbtxt.unloaded").touch()
    model(tmp_path, "pipe")
    (tmp_path / "pipe" / "1" / "model.onnx").unlink()
    os.mkfifo(tmp_path / "pipe" / "1" / "model.onnx")  # whoever reads it waits for a writer
    assert triton.models(tmp_path) == ["well"]
    assert triton.meant(tmp_path) == ["directory", "link", "missing", "pipe", "well"]
    found = [triton.unfit(tmp_path / name).partition(" is ")[2] for name in triton.meant(tmp_path)]
    assert found == ["a directory", "a link to nothing", "missing", "a pipe or a device", ""]


def test_repository_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="make export-model"):
        triton.server_command(tmp_path, 1, 2, 3, tmp_path)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            'I1 x] fine\nE1 2 a.cc:3] "first"\nerror: creating server: Internal - broken;\n',
            "creating server: Internal - broken",
        ),
        (
            "E1 2 a.cc:3] \"Poll failed for model directory 'best': bad\"\n"
            "error: creating server: Internal - failed to load all models\n",
            "Poll failed for model directory 'best': bad",
        ),
        ('E1 2 a.cc:3] "first"\nE1 2 a.cc:4] "second"\nI1 x] bye\n', "second"),
        ("tritonserver: cannot open shared object\n", "tritonserver: cannot open shared object"),
        ("", "it said nothing"),
    ],
    ids=["fatal line", "fatal line that tells nothing", "error lines", "loader", "empty"],
)
def test_failure_is_the_line_that_tells_most(tmp_path: Path, log: str, reason: str) -> None:
    path = tmp_path / "triton.log"
    path.write_text(log)
    assert triton.failure(path) == reason


def test_failure_of_one_model_is_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("E1 2 a.cc:3] \"failed to load 'other' version 1\"\nE1 2 a.cc:3] \"Poll failed for 'best': bad\"\n")
    assert triton.failure(path, "best") == "Poll failed for 'best': bad"
    assert triton.failure(path, "third") == f"Triton gives no reason; see {path}"


def test_failure_without_a_log(tmp_path: Path) -> None:
    assert triton.failure(tmp_path / "none.log") == "it said nothing"


def test_copy_renews_what_changed_and_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_text("one")
    wheel.copy(source, target)
    first = target.stat().st_ino
    wheel.copy(source, target)
    assert target.stat().st_ino == first
    source.write_text("three")
    wheel.copy(source, target)
    assert target.read_text() == "three"
    assert sorted(path.name for path in target.parent.iterdir()) == ["target"]


def test_keys_may_be_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text("k" * 16 + "\n")
    monkeypatch.delenv("TRITON_KEY", raising=False)
    monkeypatch.setenv("TRITON_KEY_FILE", str(path))
    assert triton.Keys.given().control == "k" * 16
    monkeypatch.setenv("TRITON_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(LocalError, match=r"TRITON_KEY_FILE=.*No such file"):
        triton.Keys.given()
