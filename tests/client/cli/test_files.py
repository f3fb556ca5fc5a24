"""Which files a batch finds, and under which names."""

import os
from pathlib import Path

import pytest
from yolo_gateway.cli.batch.files import find, read
from yolo_gateway.cli.text import Unusable


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("b/one.jpg", "a/one.jpg", "top.PNG", "notes.txt", "a/deep/er/two.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def test_a_folder_gives_the_images_below_it_in_order(photos: Path) -> None:
    files = find([str(photos)])
    assert files.names == ["a/deep/er/two.webp", "a/one.jpg", "b/one.jpg", "top.PNG"]
    assert files.path("a/one.jpg") == str(photos / "a/one.jpg")
    assert files.notes == [f"{photos}: 1 other file left out, not images by their names"]


def test_names_of_a_folder_do_not_depend_on_what_is_in_it(photos: Path) -> None:
    os.rename(photos / "top.PNG", photos / "a" / "top.PNG")
    os.remove(photos / "b" / "one.jpg")
    assert find([str(photos)]).names == ["a/deep/er/two.webp", "a/one.jpg", "a/top.PNG"]


def test_a_pattern_takes_what_it_matches(photos: Path) -> None:
    files = find([str(photos / "*" / "*")])
    assert files.names == ["a/one.jpg", "b/one.jpg"]
    assert [note.split(": ")[1] for note in files.notes] == ["1 folder left out; it takes files only"]
    assert find([str(photos / "**" / "*.webp")]).names == ["two.webp"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"], ids=["lines", "windows", "nul"])
def test_a_list_has_a_path_a_line(photos: Path, tmp_path: Path, end: str) -> None:
    entries = [photos / "b/one.jpg", photos / "a/one.jpg", photos / "gone.jpg", photos / "b/one.jpg"]
    (tmp_path / "list.txt").write_bytes("".join(f"{path}{end}" for path in entries).encode())
    assert find([str(tmp_path / "list.txt")]).names == ["a/one.jpg", "b/one.jpg", "gone.jpg"]


def test_what_a_shell_makes_of_a_pattern_works_too(photos: Path) -> None:
    assert find([str(photos / "a/one.jpg"), str(photos / "b/one.jpg")]).names == ["a/one.jpg", "b/one.jpg"]


def test_a_folder_named_like_an_image_is_a_folder(photos: Path) -> None:
    (photos / "album.jpg").mkdir()
    (photos / "album.jpg" / "in.jpg").write_bytes(b"x")
    assert "album.jpg/in.jpg" in find([str(photos)]).names
    assert "album.jpg" not in find([str(photos)]).names


def test_a_linked_folder_is_followed_and_a_loop_is_not(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "three.jpg").write_bytes(b"x")
    (photos / "linked").symlink_to(tmp_path / "more")
    (photos / "a" / "up").symlink_to(photos)
    (photos / "itself.jpg").symlink_to(photos / "itself.jpg")
    files = find([str(photos)])
    assert files.names == ["a/deep/er/two.webp", "a/one.jpg", "b/one.jpg", "itself.jpg", "linked/three.jpg", "top.PNG"]
    assert f"{photos}/a/up: left out; it is a link to a folder that it is in" in files.notes


@pytest.mark.parametrize("name", ["two\nlines.jpg", "犬.jpg", os.fsdecode(b"\xff\xfe.jpg")], ids=ascii)
def test_any_name_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    files = find([str(tmp_path)])
    assert files.names == [name]
    assert read(files.path(name)).data == b"x"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("gone", "gone: there is no such folder, list or image"),
        ("*.jpg", "no images in *.jpg"),
        (".", "no images in ."),
    ],
)
def test_nothing_to_send_is_one_line(source: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unusable, match="^" + line.replace("*", r"\*").replace(".jpg", r"\.jpg")):
        find([source])


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_listed(photos: Path) -> None:
    (photos / "b").chmod(0)
    try:
        assert find([str(photos)]).unreadable == [("b", "Permission denied")]
    finally:
        (photos / "b").chmod(0o755)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="Not a regular file"):
        read(str(tmp_path / "pipe.jpg"))
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))
