"""The one fake: a Triton whose model finds what it is told to find."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from gateway.triton.client import Inference, TritonFailing, TritonUnavailable
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec

SPEC = ModelSpec(
    name="fake", version="1", size_hw=(640, 640), stride=32, fixed=False, labels=("person", "bicycle", "car")
)


class FakeTriton:
    """Satisfies `pipeline.Inferer`: answers `rows` for every image, after `outages` calls that meet no Triton.

    With `failing` these meet one that cannot run the model.

    `rows` are x1, y1, x2, y2 in input pixels, score, class_id. `seen` keeps the shapes of the images.
    """

    def __init__(self, rows: list[list[float]] | None = None, outages: int = 0, failing: bool = False) -> None:
        self.rows = np.array(rows or [[100, 100, 200, 300, 0.9, 0]], np.float32).reshape(-1, 6)
        self.outages = outages
        self.failing = failing
        self.seen: list[tuple[int, ...]] = []

    def spec(self, model: str, version: str = "") -> ModelSpec:
        return SPEC

    def canvas(self, spec: ModelSpec) -> AbstractContextManager[Canvas]:
        return nullcontext(Canvas())

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        self.seen.append(image.shape)
        if self.outages:
            self.outages -= 1
            raise (TritonFailing if self.failing else TritonUnavailable)("Triton does not answer: planted")
        return Inference(self.rows, spec, {})
