"""The worker's Triton client: one inference at a time per thread, errors translated."""

import threading

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gateway.errors import ModelUnavailable
from gateway.modelspec import OUTPUT, ModelSpec, image_size, image_tensor, label_question, read_spec

OUTAGE = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"})


class TritonUnavailable(Exception):
    """Triton cannot be reached or is not ready. It may come back: worth waiting for."""


class TritonClient:
    """A blocking, thread-safe client; one per worker process. `timeout` is the longest wait for one call, seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self._client = InferenceServerClient(url)
        self._timeout = timeout
        self._specs: dict[tuple[str, str], ModelSpec] = {}
        self._reading = threading.Lock()

    def close(self) -> None:
        self._client.close()

    def spec(self, model: str, version: str = "") -> ModelSpec:
        """The spec of a version, or of the one that Triton's version policy picks; asked once for each that answers.

        Raises TritonUnavailable, or ModelMismatch when the served model is not one that `export` wrote.
        """
        with self._reading:
            if (model, version) not in self._specs:
                self._specs[model, version] = self._read_spec(model, version)
            return self._specs[model, version]

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = ""
    ) -> tuple[npt.NDArray[np.float32], ModelSpec]:
        """Run the model on one letterboxed image, RGB uint8 (height, width, 3).

        Returns the candidate rows, float32 (K, 6): x1, y1, x2, y2 in input pixels, score, class_id, best first; and
        the spec of the version that answered, which is a newer one when Triton has just taken it up.
        Raises TritonUnavailable in an outage and ModelUnavailable when Triton refuses the request.
        """
        outputs = [InferRequestedOutput(OUTPUT)]
        try:
            answer = self._client.infer(
                spec.name, [image_tensor(image)], version, outputs=outputs, client_timeout=self._timeout
            )
        except InferenceServerException as error:
            raise self._translated(error, spec.name) from error
        if answer.get_response().model_version != spec.version:
            self._specs.pop((spec.name, version), None)
            spec = self.spec(spec.name, version)
        return answer.as_numpy(OUTPUT)[0], spec

    def _read_spec(self, model: str, version: str) -> ModelSpec:
        try:
            config = self._client.get_model_config(model, version, client_timeout=self._timeout).config
            inputs, outputs = label_question(image_size(model, config))
            answer = self._client.infer(model, inputs, version, outputs=outputs, client_timeout=self._timeout)
        except InferenceServerException as error:
            raise self._translated(error, model) from error
        return read_spec(model, config, answer)

    def _translated(self, error: InferenceServerException, model: str) -> Exception:
        for key in [key for key in self._specs if key[0] == model]:
            self._specs.pop(key, None)
        if error.status() in OUTAGE:
            return TritonUnavailable(f"Triton does not answer: {error.message()}")
        return ModelUnavailable(f"Triton refused the inference of {model}: {error.message()}")
