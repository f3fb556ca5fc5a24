"""`predict`, `models`, `status`, `watch`, `doctor`, `completion`, and what all commands have in common."""

import hashlib
import http.server
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.cli.conftest import WAIT_SECONDS, Command
from tests.client.cli.relay import Relay
from tests.support.pictures import encoded
from tests.support.stack import ROOT, Stack, Triton, running_stack

KEY = "yolo_" + "k" * 40


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(640, 640))
    return path


def on_a_terminal(yolo: Command, *arguments: object, **environment: str) -> str:
    """What a terminal of 24 lines shows of a command."""
    ours, theirs = pty.openpty()
    with yolo.start(*arguments, stdout=theirs, stderr=theirs, env={**yolo.environment, **environment}) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other side is closed
            pass
        process.wait(WAIT_SECONDS)
    os.close(ours)
    return shown.decode()


def task_of(yolo: Command, *arguments: object) -> str:
    task_id: str = json.loads(yolo.run("predict", *arguments).stdout)["task_id"]
    return task_id


def test_predict_writes_a_line_an_image(picture: Path, tmp_path: Path, yolo: Command) -> None:
    (tmp_path / "notes.jpg").write_text("hello")
    done = yolo.run("predict", picture, tmp_path / "notes.jpg", tmp_path / "gone.jpg")
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, first["file"], first["status"]) == (1, str(picture), "SUCCESS")
    assert [found["label"] for found in first["result"]["detections"]] == ["person", "bicycle"]
    assert second["error"]["code"] == "unsupported_image"
    assert third["result"] == "No such file or directory"
    assert done.stderr.splitlines()[1] == f"{tmp_path}/gone.jpg: No such file or directory"


def test_predict_reads_standard_input(picture: Path, yolo: Command) -> None:
    done = yolo.run("predict", "-", "--conf", "0.8", input=picture.read_bytes())
    assert (done.returncode, len(json.loads(done.stdout)["result"]["detections"])) == (0, 1), done.stderr


def test_predict_of_a_url_says_what_the_service_says(yolo: Command) -> None:
    done = yolo.run("predict", "https://example.org/bus.jpg")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "switched_off")


def test_a_terminal_gets_a_table_in_colour_unless_it_wants_none(picture: Path, yolo: Command) -> None:
    shown = on_a_terminal(yolo, "predict", picture)
    assert f"{picture}: 2 detections in 640 x 640 by tiny version 1" in shown
    assert "\033[1mLABEL" in shown and "person   0.9000  100.00  100.00  200.00  300.00" in shown
    assert "\033[" not in on_a_terminal(yolo, "predict", picture, NO_COLOR="1")
    assert json.loads(on_a_terminal(yolo, "predict", "--json", picture))["status"] == "SUCCESS"


def test_a_table_elsewhere_has_no_colour(picture: Path, yolo: Command) -> None:
    assert "\033[" not in yolo.run("predict", "--table", picture).stdout


def test_a_name_cannot_steer_the_terminal(tmp_path: Path, yolo: Command) -> None:
    path = tmp_path / "\033[2Jtwo\nlines.png"
    path.write_bytes(encoded(64, 48))
    assert r"\x1b[2Jtwo\nlines.png: 2 detections" in on_a_terminal(yolo, "predict", path, NO_COLOR="1")


def test_models(yolo: Command) -> None:
    assert json.loads(yolo.run("models").stdout)["default"] == "tiny"
    assert yolo.run("models", "--table").stdout.splitlines()[1].split() == [
        "tiny",
        "1",
        "2",
        "640",
        "x",
        "640",
        "default",
    ]


def test_status_of_a_task(picture: Path, yolo: Command) -> None:
    task_id = task_of(yolo, picture)
    assert json.loads(yolo.run("status", task_id).stdout)["task_id"] == task_id
    assert yolo.run("status", "--table", task_id).stdout.startswith("succeeded  2 detections in 640 x 640")
    unknown = yolo.run("status", "0" * 32)
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize("task", ["../x", "..", "a" * 65, ""])
def test_what_is_no_task_id_is_not_asked_for(task: str, yolo: Command) -> None:
    for command in ("status", "watch"):
        done = yolo.run(command, "--", task)
        assert (done.returncode, "is no task id" in done.stderr) == (2, True)


def test_a_checkout_that_is_not_installed_says_so(yolo: Command) -> None:
    assert yolo.run("--version").stdout.startswith("yolo-gateway, version ")


def test_status_of_a_failure_is_one(tmp_path: Path, yolo: Command) -> None:
    (tmp_path / "cut.png").write_bytes(encoded(64, 48)[:150])
    task_id = task_of(yolo, tmp_path / "cut.png")
    assert yolo.run("status", task_id).returncode == yolo.run("watch", task_id).returncode == 1


def test_watch_shows_each_state_once_also_after_a_lost_connection(picture: Path, stack: Stack, yolo: Command) -> None:
    task_id = task_of(yolo, picture)
    with Relay(stack.base_url) as relay:
        relay.cut()
        with Command(relay.url).start("watch", task_id) as process:
            relay.mend_after(2)
            out, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, json.loads(out)["state"]) == (0, "succeeded"), errors


def test_doctor_of_a_service_that_is_well(yolo: Command) -> None:
    done = yolo.run("doctor")
    states = {each["check"]: each["state"] for each in json.loads(done.stdout)["findings"]}
    assert (done.returncode, states) == (0, dict.fromkeys(("reachable", "service", "key", "ready", "clock"), "ok"))
    assert "key        none is required" in yolo.run("doctor", "--table").stdout


def test_doctor_says_whether_the_key_is_right(triton: Triton, tmp_path: Path) -> None:
    with running_stack(
        triton, tmp_path / "stack", "tiny", settings={"API_KEYS": f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"}
    ) as stack:
        yolo = Command(stack.base_url)

        def finding(*arguments: str) -> tuple[int, str]:
            done = yolo.run("doctor", *arguments)
            (detail,) = (each["detail"] for each in json.loads(done.stdout)["findings"] if each["check"] == "key")
            return done.returncode, detail

        assert finding() == (2, "a key is required; give the right one by --key or YOLO_GATEWAY_KEY")
        assert finding("--key", "yolo_" + "w" * 40)[1].startswith("the key is wrong")
        yolo.environment["YOLO_GATEWAY_KEY"] = KEY
        assert finding() == (0, "accepted")
        wrong = yolo.run("models", "--key", "wrong")
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
        assert "by --key or in YOLO_GATEWAY_KEY (unauthorized)" in wrong.stderr


class _Other(http.server.BaseHTTPRequestHandler):
    """Some web server, an hour ahead."""

    def do_GET(self) -> None:
        body = b'{"status": "alive", "service": "fake"}' if isinstance(self.server, _Alive) else b"<html>"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + 3600)

    def log_message(self, *arguments: object) -> None:
        pass


class _Alive(http.server.HTTPServer):
    """Says that it is a gateway."""


@pytest.fixture(params=[http.server.HTTPServer])
def other(request: pytest.FixtureRequest) -> Iterator[http.server.HTTPServer]:
    server: http.server.HTTPServer = request.param(("127.0.0.1", 0), _Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_doctor_knows_another_server(other: http.server.HTTPServer) -> None:
    done = Command(f"http://127.0.0.1:{other.server_port}").run("doctor")
    assert (done.returncode, json.loads(done.stdout)["findings"][-1]["check"]) == (2, "service")


@pytest.mark.parametrize("other", [_Alive], indirect=True)
def test_doctor_sees_a_clock_that_is_wrong(other: http.server.HTTPServer) -> None:
    done = Command(f"http://127.0.0.1:{other.server_port}").run("doctor")
    finding = json.loads(done.stdout)["findings"][-1]
    assert (done.returncode, finding["check"], finding["state"]) == (1, "clock", "warning")
    assert finding["detail"] == "this machine is 1:00:00 behind the service"


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ("http://127.0.0.1:1", "nothing listens there; is the service started, and the port right?"),
        ("http://no-such-host.invalid", "the name is not known here; check --server"),
    ],
    ids=["refused", "name"],
)
def test_doctor_says_what_to_do_about_a_service_out_of_reach(server: str, line: str) -> None:
    done = Command(server).run("doctor", "--table")
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 1)
    assert done.stdout.rstrip().endswith(line)


def test_tls_where_there_is_none(stack: Stack) -> None:
    done = Command(stack.base_url.replace("http:", "https:")).run("doctor", "--table")
    assert (done.returncode, done.stdout.rstrip()[-19:]) == (2, "try http:// instead"), done.stdout


def test_an_address_that_is_none_is_refused(picture: Path, yolo: Command) -> None:
    done = yolo.run("predict", "--server", "localhost:5000", picture)
    assert (done.returncode, "'localhost:5000' is no address" in done.stderr) == (2, True)


BAD = [
    ("--server", "http://[::1", "'http://[::1'"),
    ("--server", "http://127.0.0.1:1?x=1", "more than host and path"),
    ("--server", "http://name:secret@127.0.0.1:1", "more than host and path"),
    ("--key", "secret\nkey", "characters that no key has"),
    ("--key", "secr\u00e4t", "characters that no key has"),
]


@pytest.mark.parametrize(("option", "value", "said"), BAD, ids=["port", "query", "password", "line break", "not ASCII"])
def test_what_cannot_be_an_address_or_a_key_is_refused_and_no_secret_is_said(
    option: str, value: str, said: str, yolo: Command
) -> None:
    done = yolo.run("models", option, value)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "secret", "secr\u00e4t"))


@pytest.mark.parametrize(("name", "value"), [("ALL_PROXY", "gopher://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/such/file")])
def test_an_environment_that_cannot_be_used_is_named(name: str, value: str, yolo: Command) -> None:
    done = yolo.run("models", env={**yolo.environment, name: value})
    assert (done.returncode, len(done.stderr.splitlines()), name in done.stderr) == (2, 1, True), done.stderr


def test_an_output_that_is_full_is_one_line(yolo: Command) -> None:
    with open("/dev/full", "w") as full, yolo.start("models", stdout=full) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said) == (2, b"yolo-gateway: No space left on device\n")


@pytest.mark.parametrize("descriptor", ["1", "2"], ids=["output", "errors"])
def test_an_output_that_is_closed_harms_nothing(descriptor: str, picture: Path, tmp_path: Path, yolo: Command) -> None:
    out = tmp_path / "found" / "out.json"
    out.parent.mkdir()
    line = f'exec "$@" {descriptor}>&-'
    command = [sys.executable, "-m", "yolo_gateway", "batch", str(picture), "--out", str(out)]
    done = subprocess.run(["sh", "-c", line, "sh", *command], env=yolo.environment, capture_output=True, timeout=60)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert len(json.loads(out.read_text())["images"]) == 1


def test_an_empty_input_is_said_to_be_empty(tmp_path: Path, yolo: Command) -> None:
    (tmp_path / "empty.jpg").touch()
    done = yolo.run("predict", tmp_path / "empty.jpg", "-", input=b"")
    results = [json.loads(line)["result"] for line in done.stdout.splitlines()]
    assert (done.returncode, results) == (1, ["the file is empty", "standard input is empty"])


def test_nobody_reads_the_output_to_its_end(picture: Path, yolo: Command) -> None:
    many = [picture] * 30
    line = f"{yolo.shell('predict', '--table', *many)} | head -1"
    done = subprocess.run(["bash", "-c", line], env=yolo.environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_help_has_examples_and_so_has_every_command(yolo: Command) -> None:
    overview = yolo.run("--help")
    listed = overview.stdout.split("Commands:")[1].split("Examples:")[0]
    commands = [line.split()[0] for line in listed.splitlines() if line.strip()]
    assert {"predict", "batch", "models", "status", "watch", "doctor", "completion"} <= set(commands)
    for command in [[], *([name] for name in commands)]:
        assert "Examples:\n" in yolo.run(*command, "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, yolo: Command) -> None:
    assert "_YOLO_GATEWAY_COMPLETE" in yolo.run("completion", shell).stdout


def test_completion_completes(tmp_path: Path, yolo: Command) -> None:
    program = tmp_path / "yolo-gateway"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m yolo_gateway "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(yolo-gateway completion bash)"; COMP_WORDS=(yolo-gateway batch --form); COMP_CWORD=2; '
        "_yolo_gateway_completion yolo-gateway; echo ${COMPREPLY[@]}"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**yolo.environment, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "--format", done.stderr


def test_without_click_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import yolo_gateway.__main__ as m; m.main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "yolo-gateway: the command line needs click; install it with: pip install 'yolo-gateway[cli]'\n",
    )
