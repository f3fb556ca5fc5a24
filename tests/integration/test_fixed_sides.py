"""A model of fixed sides that differ and of names that were given, through the whole service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest

from export import publish
from export.options import parse
from export.sources.checkpoint import load
from export.sources.reference import candidates
from gateway.vision.decode import decode
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms
from tests.support.stack import ROOT, Stack, running_stack, running_triton

SHAPES = ROOT / "demo" / "shapes.pt"
NAME, SIZE_HW = "wide", (192, 320)
LABELS = ["round thing", "box, of four sides", "tri"]
PICTURES = sorted((ROOT / "demo" / "shapes" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("fixed")
    names = folder / "data.yaml"
    names.write_text(f"nc: 3\nnames: {LABELS}\n")
    options = ["--weights", str(SHAPES), "--name", NAME, "--names", str(names), "--imgsz", "192,320"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_URL", "127.0.0.1:9")
        publish.export(parse([*options, "--repository", str(folder / "models")]), lambda line: None)
    with (
        running_triton(folder / "models", folder) as server,
        running_stack(server, tmp_path_factory.mktemp("stack"), NAME, workers=1) as service,
    ):
        yield service


def ask(stack: Stack, picture: bytes) -> dict[str, Any]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as http:
        body: dict[str, Any] = http.post("/predict", params={"wait": "60"}, content=picture).json()
    assert body["status"] == "SUCCESS", body
    result: dict[str, Any] = body["result"]
    return result


@pytest.mark.parametrize("turned", [False, True], ids=["as drawn", "upright"])
@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_the_service_answers_as_pytorch_at_these_sides(stack: Stack, picture: Path, turned: bool) -> None:
    image = decode(picture.read_bytes())
    image = np.ascontiguousarray(np.rot90(image)) if turned else image
    result = ask(stack, png(image))
    letterboxed, placement = letterbox(image, size_hw=SIZE_HW, stride=32, fixed=True)
    assert letterboxed.shape == (*SIZE_HW, 3)
    expected = nms(candidates(load(SHAPES).network, letterboxed), confidence=0.25, iou=0.45)
    got = [[*found["box"].values(), found["score"]] for found in result["detections"]]
    boxes = placement.to_source(expected[:, :4])
    assert len(got) == len(expected)
    np.testing.assert_allclose(np.array(got).reshape(-1, 5), np.c_[boxes, expected[:, 4]], atol=0.5)
    assert [found["label"] for found in result["detections"]] == [LABELS[int(row[5])] for row in expected]


def test_the_service_tells_the_sides(stack: Stack) -> None:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as http:
        model = http.get(f"/models/{NAME}").json()
    assert model["input"] == {"imgsz": 320, "stride": 32, "letterbox": "fixed", "height": 192, "width": 320}
    assert model["labels"] == LABELS


def png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes(cv2.imencode(".png", image[:, :, ::-1])[1])
