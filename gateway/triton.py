"""Triton over gRPC: what a model is, one inference, errors translated."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gateway.errors import ModelMismatch, ModelUnavailable

INPUT, OUTPUT = "images", "detections"
_OUTAGE = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"})


class TritonUnavailable(Exception):
    """Triton cannot be reached or is not ready. It may come back: worth waiting for."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What Triton says of a model: its `config.pbtxt` and `labels.txt` are the only source."""

    name: str
    version: str
    imgsz: int
    stride: int
    square: bool
    labels: tuple[str, ...]


class TritonClient:
    """A blocking client; one per worker process. `timeout` is the longest wait for one call, seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self._client = InferenceServerClient(url)
        self._timeout = timeout
        self._specs: dict[str, ModelSpec] = {}

    def close(self) -> None:
        self._client.close()

    def spec(self, model: str) -> ModelSpec:
        """The model's spec, asked of Triton once for each version that answers.

        Raises TritonUnavailable, or ModelMismatch when the served model is not one that `export` wrote.
        """
        if model not in self._specs:
            self._specs[model] = self._read_spec(model)
        return self._specs[model]

    def infer(self, spec: ModelSpec, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], ModelSpec]:
        """Run the model on one letterboxed image, RGB uint8 (height, width, 3).

        Returns the candidate rows, float32 (K, 6): x1, y1, x2, y2 in input pixels, score, class_id, best first; and
        the spec of the version that answered, which is a newer one when Triton has just taken it up.
        Raises TritonUnavailable in an outage and ModelUnavailable when Triton refuses the request.
        """
        try:
            answer = self._client.infer(
                spec.name, [_input(image)], outputs=[InferRequestedOutput(OUTPUT)], client_timeout=self._timeout
            )
        except InferenceServerException as error:
            raise self._translated(error, spec.name) from error
        if answer.get_response().model_version != spec.version:
            spec = self._specs[spec.name] = self._read_spec(spec.name)
        return answer.as_numpy(OUTPUT)[0], spec

    def _read_spec(self, model: str) -> ModelSpec:
        try:
            config = self._client.get_model_config(model, client_timeout=self._timeout).config
        except InferenceServerException as error:
            raise self._translated(error, model) from error
        inputs = {entry.name: list(entry.dims) for entry in config.input}
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        if set(inputs) != {INPUT} or OUTPUT not in {entry.name for entry in config.output}:
            raise ModelMismatch(f"model {model} must have the input {INPUT} and the output {OUTPUT}; export it again")
        try:
            imgsz, stride = int(parameters["imgsz"]), int(parameters["stride"])
        except (KeyError, ValueError) as error:
            raise ModelMismatch(f"config.pbtxt of {model} lacks the parameters imgsz and stride") from error
        version, labels = self._read_labels(model, imgsz)
        return ModelSpec(model, version, imgsz, stride, min(inputs[INPUT]) > 0, labels)

    def _read_labels(self, model: str, imgsz: int) -> tuple[str, tuple[str, ...]]:
        """Triton's classification extension tells labels.txt: value:index:label for each element of the output.

        https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
        """
        everything = InferRequestedOutput(OUTPUT, class_count=1 << 20)
        blank = _input(np.zeros((imgsz, imgsz, 3), np.uint8))
        try:
            answer = self._client.infer(model, [blank], outputs=[everything], client_timeout=self._timeout)
        except InferenceServerException as error:
            raise self._translated(error, model) from error
        told = [entry.decode().split(":", 2) for entry in answer.as_numpy(OUTPUT).ravel()]
        labels = {int(row[1]): row[2] for row in told if len(row) == 3}
        if not labels:
            raise ModelMismatch(f"model {model} has no labels.txt; export it again")
        version: str = answer.get_response().model_version
        return version, tuple(labels[index] for index in sorted(labels))

    def _translated(self, error: InferenceServerException, model: str) -> Exception:
        self._specs.pop(model, None)
        if error.status() in _OUTAGE:
            return TritonUnavailable(f"Triton does not answer: {error.message()}")
        return ModelUnavailable(f"Triton refused the inference of {model}: {error.message()}")


def _input(image: npt.NDArray[np.uint8]) -> InferInput:
    tensor = InferInput(INPUT, [1, *image.shape], "UINT8")
    tensor.set_data_from_numpy(image[None])
    return tensor
