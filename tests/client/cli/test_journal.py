"""The journal of a batch, and what is written from it."""

import json
from array import array
from pathlib import Path

import pytest
from yolo_gateway.cli.batch.journal import Entry, Failure, Header, Journal, Result, Size, open_journal
from yolo_gateway.cli.batch.outputs import Form, Output, picture_name, refuse_twins
from yolo_gateway.cli.text import Unusable

HEADER = Header("shapes", "3", ["circle", "square"], {"conf": 0.25})
FOUND = Entry("a/one.jpg", 10, 1_700_000_000_123_456_789, Result(Size(64, 48), [[1, 0.9, 3.5, 4.25, 20, 40]], []))
NOTHING = Entry("b/one.jpg", 11, 12, Result(Size(9, 9), [], ["cut"]))
FAILED = Entry("c\n\udcff.jpg", 13, 14, Failure("invalid_image", "cannot be decoded"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "found.json.journal"


def written(path: Path, *entries: Entry) -> list[int]:
    journal = Journal.create(path, HEADER)
    positions = [journal.add(entry) for entry in entries]
    journal.close()
    return positions


def test_what_was_added_is_read_again_in_any_order(path: Path) -> None:
    positions = written(path, FOUND, NOTHING, FAILED)
    journal = Journal.resume(path, HEADER)
    assert list(journal.entries()) == list(zip(positions, [FOUND, NOTHING, FAILED], strict=True))
    assert list(journal.at(array("q", [positions[2], -1, positions[0]]))) == [FAILED, FOUND]


@pytest.mark.parametrize("cut", [1, 30, 70])
def test_a_line_that_was_cut_is_dropped(path: Path, cut: int) -> None:
    written(path, FOUND, NOTHING)
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal.resume(path, HEADER)
    position = journal.add(FAILED)
    assert list(journal.at(array("q", [position]))) == [FAILED]
    assert [entry for _, entry in journal.entries()] == [FOUND, FAILED]


def test_a_corrupted_line_is_no_entry(path: Path) -> None:
    written(path, FOUND, NOTHING)
    path.write_bytes(path.read_bytes().replace(b'{"file":"a/one.jpg"', b'{"file\0\0\0one.jpg"'))
    assert [entry for _, entry in Journal.resume(path, HEADER).entries()] == [NOTHING]


def test_a_journal_without_a_whole_first_line_begins_anew(path: Path) -> None:
    path.write_bytes(b'{"yolo-gate')
    open_journal(path, HEADER, resume=True).close()
    assert list(Journal.resume(path, HEADER).entries()) == []


def test_a_second_run_without_resume_is_refused(path: Path) -> None:
    written(path)
    with pytest.raises(Unusable, match=r"an earlier run began here; go on with it by --resume"):
        open_journal(path, HEADER, resume=False)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (Header("other", "3", HEADER.labels, HEADER.options), 'had model "shapes", now it is "other"'),
        (Header("shapes", "4", HEADER.labels, HEADER.options), 'had version "3", now it is "4"'),
        (Header("shapes", "3", HEADER.labels, {"conf": 0.5}), "had options conf=0.25, now it is conf=0.5"),
        (Header("shapes", "3", HEADER.labels, {"conf": 0.25, "iou": 1}), "had options iou=null, now it is iou=1"),
    ],
    ids=["model", "version", "value", "added"],
)
def test_a_run_goes_on_only_as_it_began(path: Path, header: Header, line: str) -> None:
    written(path, FOUND)
    with pytest.raises(Unusable, match=line):
        open_journal(path, header, resume=True)


def test_a_run_in_which_nothing_finished_goes_on_with_another_command(path: Path) -> None:
    written(path)
    corrected = Header("shapes", "3", HEADER.labels, {"classes": ["circle"]})
    journal = open_journal(path, corrected, resume=True)
    journal.add(FOUND)
    journal.close()
    assert [entry for _, entry in Journal.resume(path, corrected).entries()] == [FOUND]


@pytest.mark.parametrize("content", ["a diary\n", "a diary"], ids=["a line", "half a line"])
def test_what_is_no_journal_is_not_touched(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(Unusable, match="is no journal of this version"):
        open_journal(path, HEADER, resume=True)
    assert path.read_text() == content


def test_two_runs_do_not_share_a_journal(path: Path) -> None:
    journal = Journal.create(path, HEADER)
    with pytest.raises(Unusable, match="another yolo-gateway is writing it"):
        Journal.resume(path, HEADER)
    journal.close()


@pytest.mark.parametrize("form", ["coco", "csv", "json", "yolo"])
def test_outputs_do_not_depend_on_who_finished_first(tmp_path: Path, form: Form) -> None:
    contents = []
    for run, entries in {"first": [FOUND, NOTHING, FAILED], "second": [FAILED, FOUND, NOTHING]}.items():
        output = Output(form, tmp_path / run / "out")
        output.prepare()
        by_name = dict(zip([entry.name for entry in entries], written(output.journal, *entries), strict=True))
        journal = Journal.resume(output.journal, HEADER)
        positions = array("q", [by_name[name] for name in sorted(by_name)])
        output.write(lambda journal=journal, positions=positions: journal.at(positions), HEADER)  # type: ignore[misc]
        files = [file for file in (tmp_path / run).rglob("*") if file.is_file() and file != output.journal]
        contents.append({str(file.relative_to(tmp_path / run)): file.read_bytes() for file in files})
        failed = [json.loads(line) for line in output.failures.read_text().splitlines()]
        assert failed == [{"file": r"c\n\udcff.jpg", "code": "invalid_image", "reason": "cannot be decoded"}]
    assert contents[0] == contents[1]
    assert not [name for name in contents[0] if ".part" in name]


def test_failures_that_are_no_more_are_not_listed(tmp_path: Path) -> None:
    output = Output("csv", tmp_path / "out.csv")
    output.write(lambda: [FAILED], HEADER)
    assert output.failures.exists()
    output.write(lambda: [FOUND], HEADER)
    assert not output.failures.exists()


@pytest.mark.parametrize("form", ["csv", "yolo"])
def test_annotations_of_somebody_else_are_not_overwritten(tmp_path: Path, form: Form) -> None:
    output = Output(form, tmp_path / "out")
    output.annotations.parent.mkdir(exist_ok=True)
    output.annotations.mkdir() if form == "yolo" else output.annotations.write_text("mine")
    with pytest.raises(Unusable, match="is there already, and no journal of a run is"):
        output.prepare()


def test_a_folder_is_no_place_for_one_file(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is a folder; name a file for --format coco"):
        Output("coco", tmp_path).prepare()


def test_two_images_with_one_label_file_are_refused() -> None:
    output = Output("yolo", Path("out"))
    output.check(["a/x.jpg", "b/x.jpg"])
    with pytest.raises(Unusable, match=r"a/x.jpg and a/x.png would both be a/x.txt with --format yolo"):
        output.check(["a/x.jpg", "a/x.png"])


def test_annotated_pictures_have_names_of_their_own() -> None:
    names = ["a/x.jpg", "a/x.JPEG", "a/x.png", "x"]
    assert [picture_name(name) for name in names] == ["a/x.jpg", "a/x.JPEG", "a/x.png.jpg", "x.jpg"]
    with pytest.raises(Unusable):
        refuse_twins(["x.png", "x.png.jpg"], picture_name, "--annotate")
