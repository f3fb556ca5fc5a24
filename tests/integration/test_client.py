"""The Python client against the whole service: its documentation as written, and a gateway killed under an upload."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from yolo_gateway import Client, Prediction, errors

from gateway.redis_names import result_key
from local.ports import free_ports
from tests.support.stack import ROOT, Stack, exported, running_stack, running_triton
from tests.support.stack import running as running_module

PICTURES = ROOT / "demo" / "shapes" / "images"
PAGE = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service with the demo model."""
    folder = tmp_path_factory.mktemp("client")
    repository = exported(ROOT / "demo" / "shapes.pt", "shapes")
    with running_triton(repository, folder) as server, running_stack(server, folder, "shapes", workers=1) as stack:
        yield stack


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.findall(r"client\.(\w+)", block)[-1])
def test_the_documentation_as_written(shapes: Stack, tmp_path: Path, block: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(sorted(PICTURES.iterdir())[:3]):
        (photos / f"{number}.jpg").write_bytes(picture.read_bytes())
    (tmp_path / "bus.jpg").write_bytes((photos / "0.jpg").read_bytes())
    text = block.replace("http://127.0.0.1:5000", shapes.base_url).replace('"person"', '"circle"')
    environment = {**os.environ, "YOLO_GATEWAY_SERVER": shapes.base_url, "PYTHONPATH": str(ROOT / "client")}
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout


def test_classes_models_and_version(shapes: Stack) -> None:
    picture = next(PICTURES.iterdir())
    with Client(shapes.base_url) as client:
        assert client.ready()
        listed = client.models()
        (model,) = listed.models
        assert listed.default == model.name == "shapes" and model.versions[0].state == "READY"
        everything = client.predict(picture)
        label = everything.detections[0].label
        some = client.predict(picture, classes=[label], model="shapes", version=1, annotate=True)
        assert {each.label for each in some.detections} == {label}
        with pytest.raises(errors.InvalidParameter, match="no such class"):
            client.predict(picture, classes=["no such class"])


def test_the_picture_is_nearly_the_services(shapes: Stack) -> None:
    """The boxes are the same; fonts differ."""
    import io

    import numpy as np
    from PIL import Image

    picture = Image.open(next(PICTURES.iterdir())).resize((1280, 960))  # the service enlarges small ones
    with Client(shapes.base_url) as client:
        task = client.submit(picture, annotate=True)
        own = task.wait().annotated()
        theirs = Image.open(io.BytesIO(task.picture(png=True))).convert("RGB")
    assert own.size == theirs.size
    difference = np.abs(np.asarray(own, int) - np.asarray(theirs, int)).max(axis=2)
    assert (difference > 60).mean() < 0.1


def test_a_gateway_killed_under_an_upload_gives_one_task(shapes: Stack, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = {
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "REDIS_URL": shapes.redis_url,
        "TRITON_URL": shapes.triton_url,
        "MODEL": "shapes",
        "METRICS_PORT": "0",
        "DRAIN_SECONDS": "0",
    }
    with redis.Redis.from_url(shapes.redis_url) as connection, Client(f"http://127.0.0.1:{port}") as client:
        known = len(connection.keys(result_key("*")))
        found: list[Prediction] = []
        asking = threading.Thread(target=lambda: found.append(client.predict(next(PICTURES.iterdir()), timeout=60)))
        with running_module("gateway.web", settings, tmp_path / "first.log") as first:
            deadline = time.monotonic() + 30
            while not client.ready() and time.monotonic() < deadline:
                time.sleep(0.1)
            first.send_signal(signal.SIGSTOP)
            asking.start()
            time.sleep(0.5)
            first.send_signal(signal.SIGCONT)
            first.kill()
        with running_module("gateway.web", settings, tmp_path / "second.log"):
            asking.join(60)
            assert found and found[0].detections
        assert len(connection.keys(result_key("*"))) == known + 1


def test_it_installs_and_runs_by_itself(shapes: Stack, tmp_path: Path) -> None:
    """In an environment of its own, with what it declares and nothing of this project's."""
    source = shutil.copytree(ROOT / "client", tmp_path / "client")  # pip leaves a folder `build` there
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    installing = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(source)]
    done = subprocess.run(installing, capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package index to install from")
    assert done.returncode == 0, done.stderr
    code = f"""
from yolo_gateway import Client
with Client({shapes.base_url!r}) as client:
    print(len(client.predict({str(next(PICTURES.iterdir()))!r})) > 0)
"""
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
