"""Versions on disk: each with its own labels and config, one of them in use."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from export import switch, versions
from export.__main__ import main
from export.config import Serving, config_pbtxt
from export.declared import parse
from export.errors import ExportError
from export.options import parse as options
from export.repository import staging

LEGACY = """name: "m"
backend: "onnxruntime"
output [ { name: "detections" data_type: TYPE_FP32 dims: [ 1000, 6 ] label_filename: "labels.txt" } ]
"""


@pytest.fixture(autouse=True)
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", "127.0.0.1:9")


def publish(repository: Path, label: str) -> int:
    model = repository / "m"
    with staging(repository, "m") as staged:
        (staged.folder / "model.onnx").write_text(label)
        (staged.folder / "labels.txt").write_text(f"{label}\n")
        number = staged.next_number()
        serving = Serving(name="m", imgsz=32 * number, stride=32, square=False, instances=1)
        (staged.folder / "config.pbtxt").write_text(config_pbtxt(serving, version=number))
        versions.keep_facts(model)
        staged.publish(number)
        versions.use(model, number)
    return number


def served(repository: Path) -> tuple[list[int], str, str]:
    """What Triton would read: the versions, the label and the size."""
    config = parse((repository / "m" / "config.pbtxt").read_text())
    label = (repository / "m" / config.output[0].label_filename).read_text().strip()
    return list(config.version_policy.specific.versions), label, config.parameters["imgsz"].string_value


def command(repository: Path, *given: str) -> list[str]:
    lines: list[str] = []
    names_it = given[0] in ("--unload", "--delete") and not given[1].isdecimal()
    name = [] if names_it else ["--name", "m"]
    switch.run(options(["--repository", str(repository), *name, *given]), lines.append)
    return lines


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Versions 1, 2 and 3 of `m`; 3 is in use."""
    for label in ("one", "two", "three"):
        publish(tmp_path, label)
    return tmp_path


def test_a_version_brings_its_own_labels_and_config(repository: Path) -> None:
    assert served(repository) == ([3], "three", "96")
    (line,) = command(repository, "--use", "1")
    assert served(repository) == ([1], "one", "32")
    assert re.search("uses version 1, version 3 before; no Triton answers at 127.0.0.1:9", line)


def test_a_rollback_goes_to_the_next_older_version_there_is(repository: Path) -> None:
    command(repository, "--rollback")
    assert served(repository)[0] == [2]
    command(repository, "--rollback", "1")
    assert served(repository)[0] == [1]
    with pytest.raises(ExportError, match=r"no version older than 1, which is in use \(it has 1, 2, 3\)"):
        command(repository, "--rollback")


def test_the_next_export_after_a_rollback_is_in_use_and_the_number_is_new(repository: Path) -> None:
    command(repository, "--rollback")
    assert publish(repository, "four") == 4
    assert served(repository) == ([4], "four", "128")


def test_what_was_changed_by_hand_stays_with_its_version(repository: Path) -> None:
    config = repository / "m" / "config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 7"))
    command(repository, "--use", "2")
    assert "count: 7" not in config.read_text()
    command(repository, "--use", "3")
    assert "count: 7" in config.read_text()
    assert config.read_text().count("in use since") == 1


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "version_policy: { latest { num_versions: 1 } }\n",
        "version_policy {\n  specific {\n    versions: [ 1, 2 ]\n  }\n}\n",
        "version_policy: < all: < > > # both\n",
    ],
)
def test_the_newest_version_of_an_earlier_release_can_be_gone_back_to(tmp_path: Path, policy: str) -> None:
    model = tmp_path / "m"
    for number in (1, 2):
        (model / str(number)).mkdir(parents=True)
        (model / str(number) / "model.onnx").write_text("")
    (model / "config.pbtxt").write_text(LEGACY + policy)
    (model / "labels.txt").write_text("legacy\n")
    assert publish(tmp_path, "new") == 3
    command(tmp_path, "--use", "2")
    config = parse((model / "config.pbtxt").read_text())
    assert list(config.version_policy.specific.versions) == [2]
    assert (model / config.output[0].label_filename).read_text() == "legacy\n"
    with pytest.raises(ExportError, match="version 1 of m has no config and labels of its own"):
        command(tmp_path, "--use", "1")


def test_a_policy_changed_by_hand_bars_no_switch_and_comments_stay(repository: Path) -> None:
    config = repository / "m" / "config.pbtxt"
    text = "# ours\n" + config.read_text().replace("specific: { versions: [ 3 ] }", "specific: { versions: [ 1, 3 ] }")
    config.write_text(text)
    command(repository, "--rollback")
    assert served(repository) == ([2], "two", "64")
    command(repository, "--use", "3")
    assert served(repository) == ([3], "three", "96") and "# ours" in config.read_text()


def test_a_version_in_use_without_its_model_file_is_still_the_one_in_use(repository: Path) -> None:
    (repository / "m" / "3" / "model.onnx").unlink()
    assert versions.in_use(repository / "m") == versions.InUse(3, versions.in_use(repository / "m").since)  # type: ignore[union-attr]
    row = next(line for line in switch.listing(repository) if line.startswith("m      3"))
    assert "since" in row and "without a model file" in row
    command(repository, "--rollback")
    assert served(repository) == ([2], "two", "64")
    with pytest.raises(ExportError, match="has no version 3"):
        command(repository, "--use", "3")
    command(repository, "--delete", "3")
    assert not (repository / "m" / "3").exists()


def test_a_model_out_of_service_has_no_config_and_comes_back(repository: Path) -> None:
    (line,) = command(repository, "--unload", "m")
    assert "out of service, version 3 was in use" in line and "USE=3 NAME=m brings it back" in line
    assert not (repository / "m" / "config.pbtxt").exists()
    assert versions.in_use(repository / "m") is None
    assert "out of service already" in command(repository, "--unload", "m")[0]
    assert any("out of service" in each for each in switch.listing(repository))
    with pytest.raises(ExportError, match=r"no version of .* is in use; USE= names"):
        command(repository, "--rollback")
    command(repository, "--use", "3")
    assert served(repository) == ([3], "three", "96")
    assert not (repository / "m" / versions.UNLOADED).exists()


def test_a_version_is_deleted_and_its_number_not_given_again(repository: Path) -> None:
    command(repository, "--use", "2")
    assert command(repository, "--delete", "3") == [f"removed version 3 of {repository / 'm'}"]
    assert publish(repository, "four") == 4


def test_a_model_is_deleted_with_all_its_versions(repository: Path) -> None:
    command(repository, "--delete", "m")
    assert list(repository.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--use", "7"], r"has no version 7 \(it has 1, 2, 3\)"),
        (["--delete", "7"], r"has no version 7"),
        (["--delete", "3"], "version 3 of .* is in use; say USE= with another first"),
        (["--delete", "other"], "there is no model .*other"),
        (["--unload", "1"], "version 1 of .* is not in use, version 3 is; UNLOAD=m names the model"),
        (["--unload", "other"], "there is no model other: no Triton answers"),
        (["--use", "1", "--delete", "2"], "USE= and DELETE= together; give one"),
        (["--use", ""], "nothing is no number of a version"),
        (["--use", "newest"], "newest is no number of a version"),
        (["--delete", ""], "give the number of a version or the name of a model"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(repository: Path, given: list[str], reason: str) -> None:
    def tree() -> dict[Path, str]:
        return {path: path.read_text() for path in repository.rglob("*") if path.is_file()}

    before = tree()
    with pytest.raises(ExportError, match=reason) as told:
        command(repository, *given)
    assert "\n" not in str(told.value)
    assert tree() == before


def latin_1(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"# caf\xe9\n")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("change", "said"),
    [(latin_1, "cannot be read: it is no UTF-8 text"), (folder, "is no file; move it"), (pipe, "is no file; move it")],
)
def test_a_config_that_is_no_text_is_told_by_one_line(
    repository: Path, change: Callable[[Path], None], said: str
) -> None:
    change(repository / "m" / "config.pbtxt")
    with pytest.raises(ExportError, match=rf"config\.pbtxt {said}[^\n]*$"):
        command(repository, "--use", "1")


def test_a_versions_own_config_that_is_no_text_is_told_by_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latin_1(repository / "m" / "1" / "config.pbtxt")
    monkeypatch.setattr("sys.argv", ["export", "--use", "1", "--name", "m", "--repository", str(repository)])
    assert main() == 1
    said = capsys.readouterr().err
    assert "no UTF-8 text" in said and said.count("\n") == 1


def test_the_list_says_what_is_in_use_since_when_and_how_good_it_is(repository: Path) -> None:
    (repository / "m" / "2" / "evaluation.json").write_text(
        '{"map50_95": 0.37, "data": "/d/coco8.yaml", "split": "val"}'
    )
    head, *lines = switch.listing(repository)
    assert head.split()[:3] == ["model", "version", "size"]
    assert [line.split()[:2] for line in lines[:3]] == [["m", str(number)] for number in (1, 2, 3)]
    assert "since" not in lines[0] + lines[1] and re.search(r"since \d{4}-\d\d-\d\dT[\d:]{8}Z", lines[2])
    assert "0.3700 coco8.yaml val" in lines[1]
    assert lines[3:] == ["no Triton answers at 127.0.0.1:9: its next start serves what is in use"]
    assert "holds no model" in next(switch.listing(repository / "nowhere"))
    assert list(switch.listing(repository, "m"))[1:4] == lines[:3]
    assert next(switch.listing(repository, "other")) == f"{repository} holds no model other"


def test_a_config_is_never_seen_half_written(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = served(repository)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ExportError, match="No space left"):
        command(repository, "--use", "1")
    assert served(repository) == before
    assert [path.name for path in (repository / "m").iterdir() if path.name.startswith(".config")] == []


def test_commands_for_one_model_wait_for_each_other(repository: Path) -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with versions.locked(repository / "m"):
            entered.set()
            leave.wait(10)
            order.append("first")

    first = threading.Thread(target=hold)
    first.start()
    entered.wait(10)
    second = threading.Thread(target=lambda: order.extend(command(repository, "--use", "1")))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    leave.set()
    second.join(10)
    first.join(10)
    assert order[0] == "first" and "uses version 1" in order[1]
