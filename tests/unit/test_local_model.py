"""Which model `make run` serves, as far as no exporter is needed to tell."""

import os
from pathlib import Path

import pytest

from local import model, triton
from local.__main__ import check_model
from local.errors import LocalError


def version(repository: Path, number: int, weights: Path | None) -> None:
    folder = repository / "best" / str(number)
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder.parent / "config.pbtxt").touch()
    if weights is not None:
        (folder / model.SOURCE).write_text(model.digest_of(weights))


@pytest.fixture
def trainings(tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints of one name, and of one age."""
    found = []
    for name in ("first", "second"):
        path = tmp_path / name / "best.pt"
        path.parent.mkdir()
        path.write_text(name)
        found.append(path)
    return found[0], found[1]


def test_source_of_a_model_is_that_of_its_latest_version(tmp_path: Path, trainings: tuple[Path, Path]) -> None:
    first, second = trainings
    version(tmp_path, 9, first)
    assert model.source(tmp_path / "best") == (model.digest_of(first), "") != (model.digest_of(second), "")
    version(tmp_path, 10, second)
    assert model.source(tmp_path / "best") == (model.digest_of(second), "")
    version(tmp_path, 11, None)
    assert model.source(tmp_path / "best") == ("", "")


def test_source_of_a_model_is_that_of_the_version_in_use(tmp_path: Path, trainings: tuple[Path, Path]) -> None:
    first, second = trainings
    version(tmp_path, 1, first)
    version(tmp_path, 2, second)
    config = b"version_policy: { specific: { versions: [ 1 ] } } # caf\xe9"
    (tmp_path / "best" / "config.pbtxt").write_bytes(config)
    assert model.source(tmp_path / "best") == (model.digest_of(first), "")


def test_a_model_out_of_service_is_not_exported_anew(tmp_path: Path) -> None:
    version(tmp_path, 1, None)
    (tmp_path / "best" / "config.pbtxt").rename(tmp_path / "best" / triton.OUT_OF_SERVICE)
    with pytest.raises(LocalError, match="best was taken out of service"):
        model.prepare(tmp_path, "best", None)


def test_model_is_not_exported_again(tmp_path: Path, trainings: tuple[Path, Path]) -> None:
    version(tmp_path, 1, trainings[0])
    assert model.prepare(tmp_path, "best", None) == "best"
    assert model.prepare(tmp_path, "best", trainings[0]) == "best"


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    version(tmp_path, 1, None)
    with pytest.raises(LocalError, match=r"WEIGHTS=.*none\.pt: no such file"):
        model.prepare(tmp_path, "best", tmp_path / "none.pt")
    with pytest.raises(LocalError, match=r"WEIGHTS=.*: is a directory"):
        model.prepare(tmp_path, "best", tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(LocalError, match=r"WEIGHTS=.*pipe\.pt: is a pipe or a device, not a file"):
        model.prepare(tmp_path, "best", tmp_path / "pipe.pt")


def test_names_given_to_make_run_go_to_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, given = tmp_path / "a.onnx", list[str]()
    weights.write_text("")
    monkeypatch.setenv("EXPORT_NAMES", "a,b")

    def export(repository: Path, name: str, *options: str) -> int:
        given.extend(options)
        return 1

    monkeypatch.setattr(model, "_export", export)
    with pytest.raises(LocalError, match="could not be exported"):
        model.prepare(tmp_path, "a", weights)
    assert given == ["--weights", str(weights), "--names", "a,b"]


@pytest.mark.parametrize("by_weights", [True, False], ids=["WEIGHTS=", "MODEL="])
def test_other_names_for_the_same_weights_are_published(
    tmp_path: Path, trainings: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, by_weights: bool
) -> None:
    exports = list[list[str]]()
    weights, file = trainings[0] if by_weights else None, tmp_path / "names.txt"
    file.write_text("a\nb\n")

    def export(repository: Path, name: str, *options: str) -> int:
        exports.append(list(options))
        version(repository, len(exports), None)
        return 0

    def published(names: str) -> int:
        monkeypatch.setenv("EXPORT_NAMES", names)
        assert model.prepare(tmp_path, "best", weights) == "best"
        return len(exports)

    monkeypatch.setattr(model, "_export", export)
    assert [published(names) for names in ("a,b", "a,b", "", "a,c", str(file), str(file))] == [1, 1, 1, 2, 3, 3]
    file.write_text("a\nc\n")
    assert published(str(file)) == 4
    assert exports[1][-2:] == ["--names", "a,c"]


def test_names_are_not_given_to_the_demo_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_NAMES", "a,b")
    monkeypatch.setattr(model, "_export", lambda *_: model.NO_WEIGHTS)
    with pytest.raises(LocalError, match="the model yolov5n could not be exported"):
        model.prepare(tmp_path, "yolov5n", None)


def test_the_model_in_an_advice_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / triton.OUT_OF_SERVICE).touch()
    with pytest.raises(LocalError, match="NAME='my model' brings"):
        model.prepare(tmp_path, "my model", None)
    with pytest.raises(LocalError, match="MODEL='a b'`"):
        check_model(tmp_path, "a b")
