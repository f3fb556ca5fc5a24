import os
from pathlib import Path

import pytest

from export.errors import ExportError
from export.repository import prune, remove, staging, versions


def publish(repository: Path, content: str = "new") -> int:
    with staging(repository, "m") as staged:
        (staged.folder / "model.onnx").write_text(content)
        number = staged.next_number()
        staged.publish(number)
        return number


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_each_export_is_the_next_version(tmp_path: Path) -> None:
    assert [publish(tmp_path, "a"), publish(tmp_path, "b")] == [1, 2]
    assert tree(tmp_path) == {"m/.newest": "2\n", "m/1/model.onnx": "a", "m/2/model.onnx": "b"}


def test_a_number_is_not_given_twice_after_its_version_was_removed(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path)
    remove(tmp_path / "m", 2)
    assert versions(tmp_path / "m") == [1]
    assert publish(tmp_path) == 3


def test_a_numbered_folder_without_a_model_is_a_version_to_triton(tmp_path: Path) -> None:
    (tmp_path / "m" / "2").mkdir(parents=True)
    (tmp_path / "m" / "2" / "notes").write_text("kept")
    assert publish(tmp_path) == 3
    assert versions(tmp_path / "m") == [3]


def test_a_failed_export_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    publish(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ExportError), staging(tmp_path, "m") as staged:
        (staged.folder / "model.onnx").write_text("broken")
        raise ExportError("beyond tolerance")
    assert tree(tmp_path) == before


def test_a_failed_first_export_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError), staging(tmp_path / "repository", "m"):
        raise ExportError("beyond tolerance")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    abandoned = tmp_path / "m" / ".staging-999999999" / "version"
    abandoned.mkdir(parents=True)
    publish(tmp_path)
    assert not abandoned.exists()


def test_the_export_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living = tmp_path / "m" / f".staging-{os.getppid()}"
    living.mkdir(parents=True)
    publish(tmp_path)
    assert living.exists()


def test_only_the_newest_versions_are_kept_and_the_one_in_use(tmp_path: Path) -> None:
    for _ in range(5):
        publish(tmp_path)
    assert prune(tmp_path / "m", 2, in_use=1) == [2, 3]
    assert versions(tmp_path / "m") == [1, 4, 5]
    assert prune(tmp_path / "m", 5, in_use=5) == []


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written: Not a directory"), staging(tmp_path / "file", "m"):
        pass
