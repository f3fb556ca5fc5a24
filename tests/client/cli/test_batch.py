"""`batch` against the real service: it survives what kills it, and loses nothing."""

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from local.ports import free_ports
from tests.client.cli.conftest import WAIT_SECONDS, Command, counted, kill_when, lines_of
from tests.client.cli.relay import Relay
from tests.support.pictures import encoded, turned
from tests.support.stack import Stack, Triton, running_stack


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but journals."""
    files = (path for path in folder.rglob("*") if path.is_file() and "journal" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("form", ["coco", "yolo", "csv", "json"])
def test_killed_in_the_middle_the_outcome_is_that_of_an_undisturbed_run(
    form: str,
    photos: Path,
    tmp_path: Path,
    yolo: Command,
    forgetful: Callable[[], None],
    accepted: Callable[[], int],
) -> None:
    (photos / "not an image.jpg").write_text("hello")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["batch", photos, "--format", form, "--senders", "4"]
    undisturbed = yolo.run(*options, "--out", whole / "out", "--annotate", whole / "boxes")
    assert undisturbed.returncode == 1, undisturbed.stderr
    forgetful()
    before = accepted()
    options += ["--out", killed / "out", "--annotate", killed / "boxes"]
    journal = killed / "out" / "journal.jsonl" if form == "yolo" else killed / "out.journal"
    for lines in (3, 17, 33):
        with yolo.start(*options, "--resume") as process:
            kill_when(process, lambda lines=lines: lines_of(journal) >= lines)  # type: ignore[misc]
        assert process.returncode == -signal.SIGKILL
    resumed = yolo.run(*options, "--resume")
    assert (resumed.returncode, json.loads(resumed.stdout)["succeeded"]) == (1, 40), resumed.stderr
    assert contents(killed) == contents(whole)
    assert accepted() - before == 40  # each image once, also those that were on their way


def test_a_finished_run_sends_nothing_again(
    photos: Path, tmp_path: Path, yolo: Command, accepted: Callable[[], int]
) -> None:
    first = yolo.run("batch", photos, "--out", tmp_path / "out.json")
    assert first.returncode == 0, first.stderr
    annotations, before = (tmp_path / "out.json").read_bytes(), accepted()
    (photos / "new.png").write_bytes(encoded(33, 44))
    second = yolo.run("batch", photos, "--out", tmp_path / "out.json", "--resume")
    assert (second.returncode, json.loads(second.stdout)["files"]) == (0, 41)
    assert accepted() - before == 1
    (photos / "new.png").unlink()
    yolo.run("batch", photos, "--out", tmp_path / "out.json", "--resume")
    assert (tmp_path / "out.json").read_bytes() == annotations


def test_coco_has_the_name_and_the_size_of_every_image_as_a_viewer_shows_it(tmp_path: Path, yolo: Command) -> None:
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    (photos / "a" / "lying.jpg").write_bytes(turned(1, ".jpg"))
    (photos / "a" / "turned.jpg").write_bytes(turned(6, ".jpg"))
    (photos / "two\nlines 犬.png").write_bytes(encoded(50, 20))
    done = yolo.run("batch", photos, "--out", tmp_path / "out.json", "--conf", "0.6")
    assert done.returncode == 0, done.stderr
    data = COCO(str(tmp_path / "out.json"))
    images = {each["file_name"]: (each["width"], each["height"]) for each in data.dataset["images"]}
    assert images == {"a/lying.jpg": (37, 21), "a/turned.jpg": (37, 21), "two\nlines 犬.png": (50, 20)}
    assert [each["name"] for each in data.loadCats(data.getCatIds())] == ["person", "bicycle"]
    assert [each["category_id"] for each in data.dataset["annotations"]] == [1, 1, 1]


def test_a_file_that_fails_is_listed_with_its_reason_and_ends_nothing(tmp_path: Path, yolo: Command) -> None:
    photos = tmp_path / "photos"
    (photos / "album.jpg").mkdir(parents=True)
    (photos / "album.jpg" / "good.png").write_bytes(encoded(64, 48))
    (photos / "notes.jpg").write_text("hello")
    (photos / "cut.png").write_bytes(encoded(64, 48)[:120])
    (photos / "empty.jpg").touch()
    (photos / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff.png")).write_bytes(encoded(64, 48))
    done = yolo.run("batch", photos, "--format", "json", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        "album.jpg/good.png"
    ]
    lines = (tmp_path / "out.jsonl.failed.jsonl").read_text().splitlines()
    failed = {each["file"]: (each["code"], each["reason"]) for each in map(json.loads, lines)}
    assert {name: code for name, (code, _) in failed.items()} == {
        "notes.jpg": "unsupported_image",
        "cut.png": "invalid_image",
        "empty.jpg": "no_image",
        "gone.jpg": "unreadable",
        "pipe.jpg": "unreadable",
        r"\udcff.png": "bad_name",
    }
    assert failed["empty.jpg"][1] == "the file is empty"
    assert failed["gone.jpg"][1] == "No such file or directory"
    for name, (_, reason) in failed.items():
        assert f"{name}: {reason}\n" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [{"MAX_QUEUED_TASKS_PER_CLIENT": "2"}, {"MAX_QUEUED_TASKS": "2"}, {"RATE_LIMIT": "4/second"}],
    ids=["429 of the client", "503 of all", "429 of the rate"],
)
def test_back_pressure_slows_down_and_loses_nothing(
    settings: dict[str, str], triton: Triton, photos: Path, tmp_path: Path
) -> None:
    for folder in ("day 1", "day 2", "day 3"):
        shutil.rmtree(photos / folder)
    (port,) = free_ports(1)
    settings = settings | {"METRICS_PORT": str(port)}
    with running_stack(triton, tmp_path / "stack", "tiny", settings=settings) as stack:
        yolo = Command(stack.base_url)
        assert (
            yolo.run("predict", *sorted((photos / "day 0").iterdir())).returncode == 0
        )  # its rate is known from now on
        before = counted(port, "yolo_gateway_rejected_total")
        done = yolo.run("batch", photos, "--out", tmp_path / "out.json", "--senders", "8")
        refused = counted(port, "yolo_gateway_rejected_total") - before
    assert (done.returncode, json.loads(done.stdout)["succeeded"]) == (0, 10), done.stderr
    assert refused, "nothing was refused; the limit tests nothing"


def test_ctrl_c_says_how_to_go_on(photos: Path, tmp_path: Path, yolo: Command) -> None:
    options = ["batch", photos, "--out", tmp_path / "out.json", "--senders", "2"]
    with yolo.start(*options) as process:
        kill_when(process, lambda: lines_of(tmp_path / "out.json.journal") > 5, signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, errors
    assert errors.decode().endswith(" of 40 files are done; the same command with --resume goes on\n")
    assert not (tmp_path / "out.json").exists()
    again = yolo.run(*options)
    assert (again.returncode, "an earlier run began here; go on with it by --resume" in again.stderr) == (2, True)
    assert yolo.run(*options, "--resume").returncode == 0


def test_a_service_that_is_down_at_the_start_is_one_line(photos: Path, tmp_path: Path) -> None:
    done = Command("http://127.0.0.1:1").run("batch", photos, "--out", tmp_path / "out.json")
    assert done.returncode == 2
    assert done.stderr == "yolo-gateway: the service is away: http://127.0.0.1:1: [Errno 111] Connection refused\n"
    assert not (tmp_path / "out.json.journal").exists()


def test_a_service_that_comes_back_is_waited_for(photos: Path, tmp_path: Path, stack: Stack) -> None:
    with Relay(stack.base_url) as relay:
        options = ["batch", photos, "--out", tmp_path / "out.json", "--senders", "4"]
        with Command(relay.url).start(*options) as process:
            relay.cut_when(lambda: lines_of(tmp_path / "out.json.journal") > 5, process)
            relay.mend_after(2)
            out, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, json.loads(out)["succeeded"]) == (0, 40), errors


def test_a_service_that_stays_away_ends_the_run_which_can_go_on(photos: Path, tmp_path: Path, stack: Stack) -> None:
    options = ["batch", photos, "--out", tmp_path / "out.json", "--senders", "4", "--patience", "1"]
    with Relay(stack.base_url) as relay:
        with Command(relay.url).start(*options) as process:
            relay.cut_when(lambda: lines_of(tmp_path / "out.json.journal") > 5, process)
            _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 2, errors
    (line,) = errors.decode().splitlines()
    assert line.startswith("yolo-gateway: the service is away: ")
    assert line.endswith(" of 40 files are done; the same command with --resume goes on")
    resumed = Command(stack.base_url).run(*options, "--resume")
    assert (resumed.returncode, json.loads(resumed.stdout)["succeeded"]) == (0, 40)


def test_a_full_disk_is_one_line_and_the_run_can_go_on(photos: Path, tmp_path: Path, yolo: Command) -> None:
    options = ["batch", photos, "--out", tmp_path / "out.json"]

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    done = yolo.run(*options, preexec_fn=little_room)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("yolo-gateway: the journal: File too large; ")
    assert yolo.run(*options, "--resume").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["photos", "--out", "photos"], "photos: is a folder; name a file for --format coco"),
        (["photos", "--out", "notes.txt"], "notes.txt: is there already, and no journal of a run is"),
        (["photos", "--out", "notes.txt/out.json"], "notes.txt: File exists"),
        (["empty", "--out", "out.json"], "no images in empty"),
        (["photos", "--out", "-"], "-: the outputs are files"),
        (["photos", "--out", "mine", "--format", "yolo"], "mine/data.yaml: is there already"),
        (["photos", "--out", "o", "--annotate", "photos/boxes"], "photos/boxes: is inside of"),
        (
            ["photos", "--out", "o", "--model", "other"],
            "Triton serves no model other; see GET /models (model_not_found)",
        ),
        (["photos", "--out", "o", "--model-version", "9"], "tiny has no version 9; see `yolo-gateway models`"),
        (
            ["photos", "--out", "o", "--classes", "cat"],
            "0 of 40 files are done; the same command with --resume goes on",
        ),
    ],
    ids=["folder", "taken", "no folder", "empty", "no output", "data.yaml", "inside", "model", "version", "classes"],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], line: str, photos: Path, tmp_path: Path, yolo: Command
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/data.yaml").write_text("mine")
    done = yolo.run("batch", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "mine/data.yaml").read_text() == "mine"


@pytest.mark.parametrize("option", ["--out", "--annotate", "--classes"])
def test_a_variable_that_came_out_empty_is_not_taken_for_something_else(
    option: str, photos: Path, tmp_path: Path, yolo: Command
) -> None:
    done = yolo.run("batch", photos, "--out", "out", "--format", "yolo", option, "", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{option}': it is empty; " in done.stderr
    assert not list(tmp_path.glob("*.txt"))


def test_annotated_pictures_take_the_place_of_no_other_file(photos: Path, tmp_path: Path, yolo: Command) -> None:
    name = min(path.relative_to(photos) for path in photos.rglob("*.png"))
    mine = tmp_path / "boxes" / f"{name}.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    options = ["batch", photos, "--out", "out.json", "--annotate", "boxes"]
    done = yolo.run(*options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"boxes/{name}.jpg: is there already; choose another --annotate, or move it away\n")
    assert mine.read_text() == "mine"
    mine.unlink()
    assert yolo.run(*options, cwd=tmp_path).returncode == 0
    assert yolo.run(*options, "--resume", cwd=tmp_path).returncode == 0


def test_a_list_on_standard_input(photos: Path, tmp_path: Path, yolo: Command) -> None:
    paths = sorted(photos.rglob("*1.png"))
    done = yolo.run(
        "batch", "-", "--format", "csv", "--out", tmp_path / "o.csv", input=b"\0".join(map(os.fsencode, paths))
    )
    assert (done.returncode, json.loads(done.stdout)["files"]) == (0, 4)
    assert (tmp_path / "o.csv").read_text().splitlines()[1].startswith("day 0/image1.png,person,0,0.9")


def test_annotated_pictures_are_as_the_service_draws_them(photos: Path, tmp_path: Path, yolo: Command) -> None:
    shutil.rmtree(photos / "day 0")
    options = ["batch", photos, "--out", tmp_path / "o.json", "--annotate", tmp_path / "boxes"]
    assert yolo.run(*options).returncode == 0
    pictures = sorted((tmp_path / "boxes").rglob("*.png.jpg"))
    assert len(pictures) == 30 and all(picture.read_bytes()[:3] == b"\xff\xd8\xff" for picture in pictures)
    pictures[0].unlink()
    assert json.loads(yolo.run(*options, "--resume").stdout)["succeeded"] == 30
    assert pictures[0].exists()


def test_progress_has_a_rate_and_an_estimate(photos: Path, tmp_path: Path, stack: Stack) -> None:
    with Relay(stack.base_url, seconds=0.02) as slow:  # a line is shown every 0.2 s
        yolo = Command(slow.url)
        command = f"stty cols 200; exec {yolo.shell('batch', photos, '--out', tmp_path / 'o.json', '--senders', '1')}"
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"], env=yolo.environment, capture_output=True, text=True, timeout=60
        )
    assert "/s, about " in done.stdout and " of 40 files, " in done.stdout, done.stdout
