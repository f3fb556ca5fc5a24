"""`python -m local`, which `make run` ends in, as a user meets it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from export.address import find
from gateway.triton.connection import RESTRICTED, control_headers
from local.ports import free_ports
from tests.support import tiny
from tests.support.pictures import encoded
from tests.support.stack import ROOT

READY_SECONDS = 60
STOP_SECONDS = 30


class Run:
    """One `python -m local` with a run folder of its own, by which its processes are known."""

    def __init__(self, folder: Path, repository: Path, model: str, *arguments: str, **settings: str) -> None:
        (self.port,) = free_ports(1)
        self.run_dir = folder / "run"
        self.output = folder / "output.txt"
        own = {"MODEL_REPOSITORY": str(repository), "MODEL": model, "PORT": str(self.port), "WORKERS": "2"}
        inherited = {key: value for key, value in os.environ.items() if key not in ("REDIS_URL", "HOST")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local", *arguments],
                cwd=ROOT,
                env=inherited | own | {"RUN_DIR": str(self.run_dir)} | settings,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def ready_line(self) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = [line for line in self.said().splitlines() if line.startswith("Ready: ")]
            if found:
                return found[0]
            time.sleep(0.1)
        pytest.fail(f"no ready line:\n{self.said()}")

    def ends(self) -> int:
        try:
            return self.process.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running:\n{self.said()}")

    def processes(self) -> list[int]:
        """Living processes that were started with this run folder, or work in it."""
        return [int(found.name) for found in Path("/proc").glob("[0-9]*") if belongs(found, self.run_dir)]

    def stopped_by(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def belongs(process: Path, run_dir: Path) -> bool:
    try:
        # The Redis server writes its title over its environment, but works in its folder.
        inside = (process / "cwd").readlink().is_relative_to(run_dir)
        return inside or f"RUN_DIR={run_dir}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False


@contextmanager
def local(folder: Path, repository: Path, model: str, *arguments: str, **settings: str) -> Iterator[Run]:
    run = Run(folder, repository, model, *arguments, **settings)
    try:
        yield run
    finally:
        run.process.terminate()
        try:
            run.process.wait(STOP_SECONDS)
        finally:
            for pid in run.processes():
                os.kill(pid, signal.SIGKILL)
            run.process.wait()


@pytest.fixture
def run(tmp_path: Path, tiny_repository: Path) -> Iterator[Run]:
    with local(tmp_path, tiny_repository, "tiny") as run:
        yield run


def test_model_control_is_the_gateways_and_the_exporters(run: Run) -> None:
    run.ready_line()
    with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/models", timeout=10) as answer:
        assert json.loads(answer.read())["models"][0]["name"] == "tiny"
    place = find("", "", {"RUN_DIR": str(run.run_dir)})
    with InferenceServerClient(place.url) as client:
        with pytest.raises(InferenceServerException, match=RESTRICTED):
            client.load_model("tiny")
        client.load_model("tiny", headers=control_headers(place.key))


def test_where_its_parts_answer_is_said_and_kept_while_it_runs(run: Run) -> None:
    run.ready_line()
    state = json.loads((run.run_dir / "stack.json").read_text())
    pages = [state[part]["metrics"] for part in ("gateway", "workers", "triton")]
    for page, name in zip(pages, ("yolo_gateway_ready", "yolo_worker_slots", "nv_inference_count"), strict=True):
        assert page in run.said()
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert name in answer.read().decode()
    assert f"gRPC at {state['triton']['grpc']}" in run.said()
    assert state["gateway"]["url"] == f"http://127.0.0.1:{run.port}"
    with InferenceServerClient(state["triton"]["grpc"]) as client:
        assert client.is_model_ready("tiny")
    assert run.stopped_by(signal.SIGTERM) == 0
    assert not (run.run_dir / "stack.json").exists()


def test_no_other_user_can_read_pictures(tmp_path: Path, tiny_repository: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)  # of an earlier version
    (tmp_path / "run").chmod(0o755)
    with local(tmp_path, tiny_repository, "tiny") as run:
        run.ready_line()
        grpc_port = json.loads((run.run_dir / "stack.json").read_text())["triton"]["grpc"].rpartition(":")[2]
        memory = list(Path("/dev/shm").glob(f"yolo_triton_{grpc_port}_*"))
        kept = [*run.run_dir.glob("redis/**/*"), run.run_dir / "triton.log"]
        assert memory and any(path.suffix == ".aof" for path in kept)
        open_to_others = {path: oct(path.stat().st_mode) for path in [*memory, *kept] if path.stat().st_mode & 0o077}
        assert open_to_others == {}
        assert run.run_dir.stat().st_mode & 0o777 == 0o700


def test_each_process_has_the_secrets_that_it_uses(tmp_path: Path, tiny_repository: Path) -> None:
    secret = "whsec_" + "A" * 32
    with local(tmp_path, tiny_repository, "tiny", CALLBACKS="true", WEBHOOK_SECRET=secret) as run:
        run.ready_line()
        held = {}
        for pid in run.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            part = next((word.decode() for word in words if word.startswith(b"gateway.")), "")
            names = {
                word.partition(b"=")[0].decode() for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            }
            if part:
                held[part] = names & {"WEBHOOK_SECRET", "TRITON_KEY", "TRITON_MEMORY_KEY", "API_KEYS"}
        assert held == {
            "gateway.web": {"TRITON_KEY"},
            "gateway.worker": {"TRITON_MEMORY_KEY"},
            "gateway.webhooks": {"WEBHOOK_SECRET"},
        }


def test_callbacks_that_nobody_can_sign_are_not_started(tmp_path: Path, tiny_repository: Path) -> None:
    with local(tmp_path, tiny_repository, "tiny", CALLBACKS="true") as run:
        assert run.ends() == 1
        assert run.said() == "local: CALLBACKS=true: callbacks are signed, set WEBHOOK_SECRET too\n"


def test_what_others_could_reach_is_not_started_without_keys(tmp_path: Path, tiny_repository: Path) -> None:
    with local(tmp_path, tiny_repository, "tiny", HOST="0.0.0.0") as run:
        assert run.ends() == 1
        assert run.said().startswith("local: HOST=0.0.0.0 lets others in") and run.said().count("\n") == 1


def test_printed_command_shows_detections(tmp_path: Path, model_repository: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with local(tmp_path, model_repository, "yolov5n") as run:
        address, command = run.ready_line().split("  ", 1)
        assert f"http://127.0.0.1:{run.port} " in address
        answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
        found = [each["label"] for each in json.loads(answer.stdout)["result"]["detections"]]
        assert {"person", "bus"} <= set(found)
        assert run.stopped_by(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_signal_stops_every_process(run: Run, number: signal.Signals) -> None:
    run.ready_line()
    assert len(run.processes()) >= 8  # itself, Redis, Triton and two stubs, two workers, the gateway
    assert run.stopped_by(number) == 0, run.said()
    assert run.processes() == []
    assert "Traceback" not in run.said()


def test_ctrl_c_while_starting_stops_every_process(run: Run) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while "Starting" not in run.said() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.stopped_by(signal.SIGINT) == 0, run.said()
    assert run.processes() == []
    assert "Traceback" not in run.said()


def test_death_of_one_process_ends_all_and_is_named(run: Run) -> None:
    run.ready_line()
    (server,) = (pid for pid in run.processes() if Path(f"/proc/{pid}/exe").readlink().name == "valkey-server")
    os.kill(server, signal.SIGKILL)
    assert run.ends() == 1
    assert run.said().splitlines()[-1].startswith("local: redis was killed by signal 9")
    assert run.processes() == []


def test_port_in_use_is_one_line(tmp_path: Path, tiny_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with local(tmp_path, tiny_repository, "tiny", PORT=port) as run:
            assert run.ends() == 1
            assert (
                run.said()
                == f"local: 127.0.0.1:{port}: address already in use; choose another with `make run PORT=...`\n"
            )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"MODEL": "yolov5z"}, "no model yolov5z in"),
        ({"WORKERS": "none"}, "WORKERS=none"),
        ({"PORT": "http"}, "PORT=http"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "REDIS_URL names a Redis that does not answer"),
    ],
    ids=["model", "workers", "port", "Redis"],
)
def test_wrong_setting_is_one_line(
    tmp_path: Path, tiny_repository: Path, settings: dict[str, str], reason: str
) -> None:
    with local(tmp_path, tiny_repository, "tiny", **settings) as run:
        assert run.ends() == 1
        assert run.said().startswith("local: ") and reason in run.said()
        assert run.said().count("\n") == 1


def test_model_that_does_not_load_ends_all_with_the_reason(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "models", "tiny")
    (folder / "1" / "model.onnx").write_text("not a model")
    with local(tmp_path, tmp_path / "models", "tiny") as run:
        assert run.ends() == 1
        last = run.said().splitlines()[-1]
        assert last.startswith("local: the model tiny did not load: ") and "model.onnx" in last
        assert "make export-model MODEL=tiny" in last and "Exception" not in last
        assert run.processes() == []


def test_config_that_cannot_be_read_ends_all_with_the_reason(tmp_path: Path) -> None:
    (tiny.write(tmp_path / "models", "tiny") / "config.pbtxt").write_text("max_batch_size: many")
    with local(tmp_path, tmp_path / "models", "tiny") as run:
        assert run.ends() == 1
        last = run.said().splitlines()[-1]
        assert last.startswith("local: the model tiny did not load: ") and "'tiny'" in last


def test_a_default_model_that_does_not_load_is_refused_and_the_others_are_served(tmp_path: Path) -> None:
    tiny.write(tmp_path / "models", "good", tiny.finder())
    (tiny.write(tmp_path / "models", "bad") / "1" / "model.onnx").write_text("not a model")
    with local(tmp_path, tmp_path / "models", "bad") as run:
        assert "serves good" in run.ready_line()
        assert "The model bad did not load, the others are served: " in run.said()
        picture = encoded(64, 48)
        for query in ("", "?model=bad"):
            begun = time.monotonic()
            answer = httpx2.post(f"http://127.0.0.1:{run.port}/predict{query}", content=picture)
            assert (answer.status_code, answer.json().get("code")) == (503, "service_unavailable"), answer.text
            assert (
                "bad is not served" in answer.json()["detail"]
                or "does not serve the model bad" in answer.json()["detail"]
            )
            assert time.monotonic() - begun < 8
        body = httpx2.post(
            f"http://127.0.0.1:{run.port}/predict?model=good&wait=30", content=picture, timeout=40
        ).json()
        assert body["status"] == "SUCCESS", body
        assert "bad is not served" in httpx2.get(f"http://127.0.0.1:{run.port}/status").json()["missing"]["triton"]
        assert [each["name"] for each in httpx2.get(f"http://127.0.0.1:{run.port}/models").json()["unavailable"]] == [
            "bad"
        ]


def test_configs_that_cannot_be_read_are_said_everywhere(tmp_path: Path) -> None:
    models = tmp_path / "models"
    tiny.write(models, "tiny", tiny.finder())
    (tiny.write(models, "text") / "config.pbtxt").write_text("max_batch_size: many")
    named = tiny.write(models, "named") / "config.pbtxt"
    named.write_text(named.read_text().replace('name: "named"', 'name: "other"'))
    (tiny.write(models, "link") / "config.pbtxt").unlink()
    (models / "link" / "config.pbtxt").symlink_to("nowhere")
    (tiny.write(models, "folder") / "config.pbtxt").unlink()
    (models / "folder" / "config.pbtxt").mkdir()
    stride = tiny.write(models, "stride") / "config.pbtxt"
    stride.write_text(stride.read_text().replace('"32"', '"0"'))
    policy = tiny.write(models, "policy") / "config.pbtxt"
    policy.write_text(policy.read_text() + "version_policy: { specific: { versions: [ 7 ] } }\n")
    broken = ["folder", "link", "named", "text"]
    with local(tmp_path, models, "tiny") as run:
        run.ready_line()
        said = run.said()
        for name in broken:
            assert f"The model {name} did not load, the others are served: " in said
        assert "link to nothing" in said and "is a directory" in said
        base = f"http://127.0.0.1:{run.port}"
        shown = {each["name"]: each["reason"] for each in httpx2.get(f"{base}/models").json()["unavailable"]}
        assert list(shown) == sorted([*broken, "stride"]) and "'0' as the parameter stride" in shown["stride"]
        for name in ("stride", "policy"):
            answer = httpx2.post(f"{base}/predict", params={"model": name}, content=encoded(64, 48))
            assert answer.status_code == 503 and name in answer.json()["detail"]
        status = httpx2.get(f"{base}/status")
        assert (status.status_code, sorted(status.json()["unavailable"])) == (200, broken)
        for name in broken:
            answer = httpx2.post(f"{base}/predict", params={"model": name}, content=encoded(64, 48))
            assert answer.status_code == 503 and f"does not serve the model {name}" in answer.json()["detail"]
            assert httpx2.get(f"{base}/models/{name}").status_code == 503
        assert httpx2.post(f"{base}/predict?model=nonesuch", content=encoded(64, 48)).status_code == 422
        settings = os.environ | {"RUN_DIR": str(run.run_dir)}
        command = [sys.executable, "-m", "doctor"]
        doctor = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60)
        assert doctor.returncode == 1 and "Traceback" not in doctor.stderr
        for name in broken:
            told = doctor.stdout.partition(f"\n{name}\n")[2].partition("\n\n")[0]
            assert "config.pbtxt" in told and "gives no reason" not in told, doctor.stdout


def test_another_model_that_does_not_load_is_said_and_the_rest_is_served(tmp_path: Path) -> None:
    tiny.write(tmp_path / "models", "tiny")
    (tiny.write(tmp_path / "models", "other") / "1" / "model.onnx").write_text("not a model")
    with local(tmp_path, tmp_path / "models", "tiny") as run:
        run.ready_line()
        assert "The model other did not load, the others are served: " in run.said()
        command = [sys.executable, "-m", "doctor"]
        settings = os.environ | {"RUN_DIR": str(run.run_dir)}
        doctor = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60)
        told = doctor.stdout.partition("\nother\n")[2]
        assert doctor.returncode == 1 and "WRONG  not loaded" in told and "make export-model MODEL=other" in told
        assert "Exception" not in told and "is no ONNX file" in told
        with urllib.request.urlopen(f"http://127.0.0.1:{run.port}/models", timeout=10) as answer:
            listing = json.loads(answer.read())
        assert [model["name"] for model in listing["models"]] == ["tiny"]
        (unavailable,) = listing["unavailable"]
        assert unavailable["name"] == "other" and "model.onnx" in unavailable["reason"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{run.port}/models/other", timeout=10)
        assert refused.value.code == 503 and "does not serve the model other" in refused.value.read().decode()


def test_second_stack_on_the_same_folder_is_refused(run: Run, tmp_path: Path, tiny_repository: Path) -> None:
    run.ready_line()
    (tmp_path / "second").mkdir()
    with local(tmp_path / "second", tiny_repository, "tiny", RUN_DIR=str(run.run_dir)) as second:
        assert second.ends() == 1
        assert "another stack runs on" in second.said()


def test_without_weights_the_demo_model_is_served_and_said_to_be_one(tmp_path: Path) -> None:
    unreachable = {"YOLO_SHARED": str(tmp_path), "https_proxy": "http://127.0.0.1:1"}
    drawing = ROOT / "demo" / "shapes" / "images" / "0.jpg"
    with local(tmp_path, tmp_path / "models", "yolov5x", "--export", **unreachable) as run:
        assert "/predict?wait=30" in run.ready_line() and "demo/shapes" in run.ready_line()
        assert "Three ways to get them" in run.said() and "THIS IS THE DEMO MODEL" in run.said()
        answer = subprocess.run(
            ["curl", "-s", "-F", f"image=@{drawing}", f"http://127.0.0.1:{run.port}/predict?wait=30"],
            capture_output=True,
            check=True,
        )
        assert {found["label"] for found in json.loads(answer.stdout)["result"]["detections"]} <= {
            *("circle", "square", "triangle")
        }
