"""Which images and labels of a data set count: as in YOLOv5's own validation."""

import os
from pathlib import Path

import numpy as np
import pytest

from evaluation import names
from evaluation.dataset import Dataset, read
from evaluation.errors import DatasetError
from export.sources import class_names
from tests.support.datasets import write
from tests.support.fakes import SPEC
from tests.support.pictures import encoded, turned

ROW = "0 0.5 0.5 0.25 0.5"
CLASSES = len(SPEC.labels)
IMAGE = encoded(64, 48)
SPLITS: dict[str, str | bytes] = {
    f"images/{split}/{letter}.png": IMAGE for split, letter in zip(("train", "val", "test"), "abc", strict=True)
} | {f"labels/{split}/{letter}.txt": ROW for split, letter in zip(("train", "val", "test"), "abc", strict=True)}


def shown(dataset: Dataset) -> list[str]:
    return [image.path.name for image in dataset.images]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.png", "a.txt"),
        ("images/a.png", "labels/a.txt"),
        ("images/deep/a.png", "labels/deep/a.txt"),
        ("other/images/a.png", "other/labels/a.txt"),
        ("images/a.png", "images/a.txt"),
        ("images/images/a.b.png", "images/labels/a.b.txt"),
    ],
    ids=["beside", "folders", "split below", "split above", "beside, in images", "the last images"],
)
def test_labels_are_found(tmp_path: Path, image: str, label: str) -> None:
    dataset = read(write(tmp_path, {image: IMAGE, label: ROW}), CLASSES)
    assert dataset.images[0].class_ids.tolist() == [0]
    assert dataset.images[0].boxes_xyxy_source(64, 48).tolist() == [[24, 12, 40, 36]]


def test_labels_are_found_from_the_images_folder_itself(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": IMAGE, "labels/a.txt": ROW})
    assert len(read(tmp_path / "images", CLASSES).images) == 1


def test_labels_are_found_behind_a_link_and_in_front_of_it(tmp_path: Path) -> None:
    write(tmp_path, {"store/a.png": IMAGE, "set/labels/val/a.txt": ROW, "set/data.yaml": "val: images/val\nnames: [x]"})
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/val").symlink_to(tmp_path / "store")
    assert read(tmp_path / "set", CLASSES).unlabelled == 0
    write(tmp_path, {"store/a.txt": ""})
    with pytest.raises(DatasetError, match="no label file names an object"):
        read(tmp_path / "set", CLASSES)


def test_an_image_without_a_label_file_is_a_background_and_told(tmp_path: Path) -> None:
    dataset = read(
        write(tmp_path, {"a.png": IMAGE, "b.png": IMAGE, "b.txt": ROW, "c.png": IMAGE, "c.txt": ""}), CLASSES
    )
    assert [len(image.class_ids) for image in dataset.images] == [0, 1, 0]
    assert dataset.unlabelled == 1
    assert [note for note in dataset.notes if "1 of 3 images have no label file" in note]


@pytest.mark.parametrize(("split", "name"), [("", "b.png"), ("val", "b.png"), ("train", "a.png"), ("test", "c.png")])
@pytest.mark.parametrize("given", ["data.yaml", "", "other.yaml", "none"])
def test_one_split_counts(tmp_path: Path, split: str, name: str, given: str) -> None:
    splits = "train: images/train\nval: images/val\ntest: [images/test]\nnames: [person, bicycle, car]"
    write(tmp_path, SPLITS)
    if given != "none":
        write(tmp_path, {given or "data.yaml": splits, "hyp.yaml": "lr0: 0.1"})
    dataset = read(tmp_path / given if given == "data.yaml" else tmp_path, CLASSES, split)
    assert shown(dataset) == [name]
    assert dataset.listing.split == (split or "val")


@pytest.mark.parametrize("path", ["", ".", "set", "../set", "ABSOLUTE"])
def test_path_is_looked_for_next_to_the_data_yaml(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    spelled = str(tmp_path / "set") if path == "ABSOLUTE" else path
    write(tmp_path / "set", SPLITS | {"data.yaml": f"path: {spelled}\nval: images/val\nnames: [person]"})
    assert read(tmp_path / "set/data.yaml", CLASSES).listing.places == (str(tmp_path / "set/images/val"),)


def test_path_is_looked_for_in_the_working_directory_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"far/deep/data.yaml": "path: here/set\nval: images/val\nnames: [person]"})
    write(tmp_path / "here/set", SPLITS)
    monkeypatch.chdir(tmp_path)
    assert shown(read(Path("far/deep/data.yaml"), CLASSES)) == ["b.png"]


def test_a_step_up_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "set", {"valid/images/b.png": IMAGE, "valid/labels/b.txt": ROW})
    write(tmp_path / "set", {"data.yaml": "val: ../valid/images\nnames: [person]"})
    assert shown(read(tmp_path / "set", CLASSES)) == ["b.png"]


@pytest.mark.parametrize(
    "listed",
    [
        "./images/val/b.png\n./images/test/c.png",
        "images/val/b.png\r\nimages/test/c.png\r\n",
        "\ufeff  ./images/val/b.png  \n\n./images/test/c.png\nnotes.md",
        "{root}/images/val/b.png\n./images/test/c.png\n./images/val/b.png",
    ],
    ids=["dotted", "windows", "blanks", "absolute and twice"],
)
@pytest.mark.parametrize("by_yaml", [True, False], ids=["data.yaml", "alone"])
def test_a_list_names_images(tmp_path: Path, listed: str, by_yaml: bool) -> None:
    write(tmp_path, SPLITS | {"val.txt": listed.format(root=tmp_path), "data.yaml": "val: [val.txt]\nnames: [person]"})
    assert shown(read(tmp_path / ("data.yaml" if by_yaml else "val.txt"), CLASSES)) == ["c.png", "b.png"]


def test_nested_folders_and_every_suffix_count_and_hidden_files_do_not(tmp_path: Path) -> None:
    made = {
        name: encoded(64, 48, f".{name.rpartition('.')[2].lower()}") for name in ("a.JPG", "x/y/b.tif", "[c]/d.bmp")
    }
    labels = {f"{name.rpartition('.')[0]}.txt": ROW for name in made}
    write(tmp_path, {**made, **labels, "._a.jpg": b"", ".cache/e.png": IMAGE, "labels.cache": b"", "f.gif": b""})
    assert sorted(shown(read(tmp_path, CLASSES))) == ["a.JPG", "b.tif", "d.bmp"]


@pytest.mark.parametrize("listed", ["[circle, square]", "{0: circle, 1: square}", '{"0": circle, "1": square}'])
def test_names_come_from_data_yaml(tmp_path: Path, listed: str) -> None:
    write(tmp_path, {"a.png": IMAGE, "a.txt": ROW, "data.yaml": f"names: {listed}"})
    assert read(tmp_path, CLASSES).names == {0: "circle", 1: "square"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["person", "bicycle", "car"], None),
        (["bicycle", "person", "car"], "0 is 'bicycle' in data.yaml and 'person' in the model.*in another order"),
        (["person", "bicycle", "car", "bus"], "3 is 'bus' in data.yaml and no class in the model"),
        (["a", "b", "c", "d", "e", "f", "g"], "4 is 'e' in data.yaml and no class in the model and 2 more"),
    ],
    ids=["equal", "order", "more", "many"],
)
def test_classes_that_do_not_match_the_models_are_told_by_name(given: list[str], message: str | None) -> None:
    classes = dict(enumerate(given))
    if message is None:
        assert names.check(classes, SPEC.labels) == []
    else:
        with pytest.raises(DatasetError, match=message) as caught:
            names.check(classes, SPEC.labels)
        assert "--ignore-names" in str(caught.value) and "\n" not in str(caught.value)


def test_objects_of_classes_without_a_name_are_refused() -> None:
    names.check_labelled({0: "person"}, [0, 0], SPEC.labels)
    names.check_labelled({}, [2], SPEC.labels)
    with pytest.raises(DatasetError, match=rf"does not name: 2 \('{SPEC.labels[2]}' in the model\)"):
        names.check_labelled({0: "person"}, [0, 2, 2], SPEC.labels)


def test_fewer_classes_than_the_model_has_are_told() -> None:
    assert names.check({0: "person"}, SPEC.labels) == [
        "data.yaml names 1 of the model's 3 classes; the others are not scored"
    ]
    assert names.check({}, SPEC.labels) == []


@pytest.mark.parametrize(
    ("rows", "classes", "boxes", "note"),
    [
        ("1 .5 .5 .2 .2\n1.0 .5 .5 .2 .2\n0 .5 .5 .2 .2", [0, 1], [[0.5, 0.5, 0.2, 0.2]] * 2, "1 rows"),
        ("2 .1 .2 .5 .1 .3 .6", [2], [[0.3, 0.35, 0.4, 0.5]], None),
        ("2 .1 .2 .5 .1 .3 .6\n1 .2 .2 .4 .4", [2, 1], [[0.3, 0.35, 0.4, 0.5], [0.3, 0.3, 0.2, 0.2]], "1 label files"),
        ("\ufeff0 .5 .5 .2 .2\r\n\r\n  \r\n", [0], [[0.5, 0.5, 0.2, 0.2]], None),
    ],
    ids=["duplicates", "polygon", "polygon and box", "windows"],
)
def test_label_files_are_read(
    tmp_path: Path, rows: str, classes: list[int], boxes: list[list[float]], note: str | None
) -> None:
    dataset = read(write(tmp_path, {"a.png": IMAGE, "a.txt": rows}), CLASSES)
    assert dataset.images[0].class_ids.tolist() == classes
    assert np.allclose(dataset.images[0].boxes_cxcywh, boxes)
    assert [line[: len(note)] for line in dataset.notes] == [note] if note else not dataset.notes


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("b.txt", "0 0.5 -0.5 0.1 0.1"),
        ("b.txt", "0 0.5 0.5 0.1 1.1"),
        ("b.txt", "0 0.5 0.5 0.1"),
        ("b.txt", "0 0.5 0.5 0.1 0.1 0.9"),
        ("b.txt", "-1 0.5 0.5 0.1 0.1"),
        ("b.txt", "0 .1 .1 .2 .2 .3 .3 .4"),
        ("b.png", b"no image"),
        ("b.png", encoded(64, 9)),
        ("b.png", encoded(64, 48, ".gif")),
    ],
    ids=["negative", "beyond", "four", "six", "class", "odd polygon", "no image", "small", "GIF"],
)
def test_what_val_py_ignores_is_left_out_and_named(tmp_path: Path, file: str, content: str | bytes) -> None:
    write(tmp_path, {"a.png": IMAGE, "a.txt": ROW, "b.png": IMAGE, "b.txt": ROW})
    dataset = read(write(tmp_path, {file: content}), CLASSES)
    assert shown(dataset) == ["a.png"]
    assert dataset.notes[-1].startswith("1 images left out, as val.py does: ") and file in dataset.notes[-1]


def test_an_image_is_measured_upright(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"a.jpg": turned(6, ".jpg"), "a.txt": ROW}), CLASSES)
    assert dataset.images[0].size_wh == (37, 21)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"a.png": IMAGE}, "holds 1 images but no label files"),
        ({"a.png": IMAGE, "a.txt": "3 0.5 0.5 0.1 0.1"}, r"a\.txt: class 3 is none of the model's 0 to 2"),
        ({"a.png": IMAGE, "a.txt": "0.5 0.5 0.5 0.1 0.1"}, "class 0.5 is none"),
        ({"a.png": IMAGE, "a.txt": f"{ROW}\n0 0.5 0.5 0.1"}, "line 2: 4 numbers instead of the five"),
        ({"a.png": IMAGE, "a.txt": "zero 0.5 0.5 0.1 0.1"}, "is not five numbers"),
        ({"a.png": IMAGE, "a.txt": "0 320 240 64 64"}, "must lie between 0 and 1"),
        ({"a.png": IMAGE, "a.txt": "0 nan 0.5 0.1 0.1"}, "must lie between 0 and 1"),
        ({"a.png": IMAGE, "a.txt": b"\xff\xfe"}, "cannot be read"),
        ({"a.png": b"no image", "a.txt": ROW}, "the image cannot be read"),
        ({"a.png": IMAGE, "a.txt": ""}, "no label file names an object"),
        ({"a.png": IMAGE, "a.txt": ROW, "data.yaml": "names: 3"}, "no readable `names`"),
        ({"a.png": IMAGE, "a.txt": ROW, "data.yaml": "{"}, "no readable `names`"),
        ({"a.png": IMAGE, "data.yaml": "train: .\nnames: [x]"}, "has no val, it has train; give SPLIT=train"),
        (
            {"a.png": IMAGE, "data.yaml": "path: ..\nnames: [x]", "train/a.png": IMAGE},
            "has no folder val, it has train",
        ),
        ({"data.yaml": "val: images\nnames: [x]"}, "val is images, which is in none of .*set `path`"),
        ({"data.yaml": "path: [3]\nval: images\nnames: [x]"}, "`path` must be"),
        ({"data.yaml": "val: {a: b}\nnames: [x]"}, "`val` must be a folder"),
        ({"data.yaml": "val: .\n"}, "has no `names`; add `names:` with the names of its classes"),
        ({"data.yaml": "val: .\nnames: null"}, "has no `names`; add"),
        ({"data.yaml": "val: .\nnames: [[a]]"}, "no readable `names`: names that are no text"),
        ({"data.yaml": 'val: .\nnames: ["\\ud800"]'}, "no readable `names`"),
        ({"data.yaml": "val: .\nnames: {a: b}"}, "no readable `names`: .*map from class numbers"),
        ({"data.yaml": "val: " + "[" * 5000}, "no readable `names`: no YAML"),
        (
            {"data.yaml": "path: ~nobody-of-that-name\nval: x\nnames: [x]"},
            "`path`: there is no home folder for ~nobody",
        ),
        ({"a.yaml": "val: .\nnames: [x]", "b.yaml": "val: .\nnames: [x]"}, "has a.yaml and b.yaml; give one of them"),
        ({"train/a.png": IMAGE, "train/a.txt": ROW}, "has no folder val, it has train; give SPLIT=train"),
        ({"v.txt": "./a.png\n./b.png", "data.yaml": "val: v.txt\nnames: [x]"}, "none of 2 images.*no such file"),
    ],
)
def test_a_broken_data_set_is_refused_in_one_line(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(write(tmp_path, files), CLASSES)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["names: [x]", "names: [x]\nval: null\ntrain: ~\ntest:"])
def test_a_data_yaml_without_splits_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    write(tmp_path, {"data.yaml": content, "a.png": IMAGE, "a.txt": ROW})
    with pytest.raises(DatasetError, match=r"data\.yaml has none of train, val, test; add `val:` with the folder"):
        read(tmp_path / "data.yaml", CLASSES)
    assert shown(read(tmp_path, CLASSES)) == ["a.png"]


@pytest.mark.parametrize("name", ["no", "yes", "007", "1e3", "1_000", "null", "~", "2024-13-45", "=", "0x1F", "on"])
@pytest.mark.parametrize("form", ["[{}]", "{{0: {}}}"], ids=["list", "map"])
def test_names_are_as_people_wrote_them(tmp_path: Path, name: str, form: str) -> None:
    file = write(tmp_path, {"a.png": IMAGE, "a.txt": ROW, "data.yaml": f"val: .\nnames: {form.format(name)}"})
    found = read(file, CLASSES).names
    assert found == {0: name} == dict(enumerate(class_names.read(str(tmp_path / "data.yaml"))))
    assert names.check(found, [name]) == []


@pytest.mark.parametrize(("name", "label"), [("no", "False"), ("yes", "True"), ("007", "7"), ("1.50", "1.5")])
def test_names_are_those_of_a_training_that_read_them_as_yaml(name: str, label: str) -> None:
    assert names.check({0: name}, [label]) == []
    with pytest.raises(DatasetError, match=r"0 is 'no' in data\.yaml"):
        names.check({0: "no"}, ["True"])


def test_a_list_with_impossible_names_costs_these_images_alone(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": IMAGE, "a.txt": ROW, "v.txt": f"./a.png\n{'x' * 300}.png\nb\0.png\n./a.png/c.png"})
    dataset = read(tmp_path / "v.txt", CLASSES)
    assert shown(dataset) == ["a.png"] and "3 images left out" in dataset.notes[-1]
    for split in ("x" * 300, '"a\\0b"', "v.txt/x"):
        write(tmp_path, {"data.yaml": f"val: {split}\nnames: [x]"})
        with pytest.raises(DatasetError, match="set `path` to the folder"):
            read(tmp_path / "data.yaml", CLASSES)


@pytest.mark.timeout(20)
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": IMAGE, "a.txt": ROW, "c.png": IMAGE, "data.yaml": "val: v.txt\nnames: [x]"})
    for name in ("b.png", "c.txt", "v.txt", "d.yaml"):
        os.mkfifo(tmp_path / name)
    for data in ("data.yaml", "v.txt", "d.yaml", ""):
        if data:
            with pytest.raises(DatasetError, match="is a pipe or a device"):
                read(tmp_path / data, CLASSES)
    (tmp_path / "data.yaml").unlink()
    dataset = read(tmp_path, CLASSES)
    assert shown(dataset) == ["a.png", "c.png"] and dataset.unlabelled == 1
    assert "b.png: it is a pipe or a device, not a file" in dataset.notes[-1]
    (tmp_path / "v.txt").unlink()
    write(tmp_path, {"v.txt": "./a.png\n./b.png"})
    assert shown(read(tmp_path / "v.txt", CLASSES)) == ["a.png"]


@pytest.mark.parametrize(("name", "message"), [("nowhere", "is not a folder"), ("a.zip", "neither a data.yaml nor")])
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, {"a.zip": b"PK"})
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / name, CLASSES)


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, SPLITS | {"data.yaml": "train: images/train\nval: images/val\ntest:\nnames: [person]"})
    with pytest.raises(DatasetError, match="has no test, it has train and val; give SPLIT=val"):
        read(tmp_path, CLASSES, "test")


def test_a_split_of_what_has_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": IMAGE, "a.txt": ROW})
    with pytest.raises(DatasetError, match="has no splits; leave SPLIT=test out"):
        read(tmp_path, CLASSES, "test")
