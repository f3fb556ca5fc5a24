"""The worker's Triton client: one inference at a time per thread, errors translated."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from gateway.errors import ModelUnavailable
from gateway.telemetry import tracing
from gateway.triton.connection import CHANNEL_ARGUMENTS, OUTAGE
from gateway.triton.http_inference import Answer, HttpFailed, HttpInference
from gateway.triton.loading import is_absent
from gateway.triton.shared_memory import Canvas, SharedMemory
from gateway.triton.spec import OUTPUT, ModelSpec, image_size, image_tensor, label_question, read_spec
from gateway.triton.statistics import Statistics

# What Triton's scheduler says, as UNAVAILABLE, where default_queue_policy has a max_queue_size or a timeout:
# `src/scheduler_utils.cc` (PriorityQueue, PolicyQueue) and `src/dynamic_batch_scheduler.cc` of triton core.
_BUSY = ("Exceeds maximum queue size", "Request timeout expired")
_REFUSED = frozenset({"StatusCode.INVALID_ARGUMENT", "StatusCode.UNIMPLEMENTED"})
_LIVE_SECONDS = 2.0
_GONE_SECONDS = 2.0  # a model that a living Triton has not had for so long is no outage any more


class TritonUnavailable(Exception):
    """Triton cannot be reached or is not ready. It may come back: worth waiting for."""

    retry_reason: ClassVar[str] = "triton_away"  # of gateway.telemetry.metrics.RETRY_REASONS


class TritonBusy(TritonUnavailable):
    """Triton is well, and has refused the request because its queue is full or the request waited too long there."""

    retry_reason = "triton_busy"


class TritonFailing(TritonUnavailable):
    """Triton could not run the model, or has none of that name; it may be about to end. Worth some more tries."""


class ModelChanged(TritonUnavailable):
    """Another version has taken the model's place. Worth a try at once, from its spec on."""

    retry_reason = "model_changed"


class Inference(NamedTuple):
    """The answer to one image.

    `rows` are the candidates, float32 (K, 6): x1, y1, x2, y2 in input pixels, score, class_id, best first. `spec` is of
    the version that answered, a newer one when Triton has just taken it up. `parts_ms` are the means of Triton's own
    queue and compute times per image over about the last second: Triton does not tell them for a single request.
    """

    rows: npt.NDArray[np.float32]
    spec: ModelSpec
    parts_ms: dict[str, float]


class TritonClient:
    """A blocking, thread-safe client; one per worker process. `timeout` is the longest wait for one call, seconds.

    With `memory_key`, which opens the shared memory of a Triton on the same host, images go there through it, and are
    asked for over HTTP where its `http_url`, host:port, is given too.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        memory_key: str | None = None,
        http_url: str | None = None,
        channel_arguments: Sequence[tuple[str, object]] = CHANNEL_ARGUMENTS,
    ) -> None:
        self._client = InferenceServerClient(url, channel_args=channel_arguments)
        self._memory = SharedMemory(self._client, url, memory_key)
        self._http = HttpInference(http_url) if http_url else None
        self._timeout = timeout
        self._specs: dict[tuple[str, str], ModelSpec] = {}
        self._absent_since: dict[str, float] = {}  # by model, until it is there again
        self._reading = threading.Lock()
        self._statistics = Statistics(self._client)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        self._memory.close()
        self._client.close()

    def outage(self) -> str:
        """Why Triton cannot be asked; empty when it can. Answers within _LIVE_SECONDS."""
        try:
            live = self._client.is_server_live(client_timeout=_LIVE_SECONDS)
        except InferenceServerException as error:
            return f"it does not answer: {error.message()}"
        return "" if live else "it stops"

    def spec(self, model: str, version: str = "") -> ModelSpec:
        """The spec of a version, or of the one that Triton's version policy picks; asked once for each that answers.

        Raises as `infer` does, and ModelMismatch when the served model is not one that `export` wrote.
        """
        if not self._reading.acquire(timeout=self._timeout):
            raise TritonUnavailable("Triton does not answer what is asked of its model")
        try:
            if (model, version) not in self._specs:
                self._specs[model, version] = self._read_spec(model, version)
                self._absent_since.pop(model, None)
            return self._specs[model, version]
        finally:
            self._reading.release()

    def forget(self, model: str) -> None:
        """Ask again for the specs of this model."""
        for key in [key for key in self._specs if key[0] == model]:
            self._specs.pop(key, None)

    @contextmanager
    def canvas(self, spec: ModelSpec, least_bytes: int = 0) -> Iterator[Canvas]:
        """For one image of the model's size, or of that many bytes. An image made there is not copied for Triton."""
        with self._memory.lent(max(spec.image_bytes, least_bytes)) as region:
            yield Canvas(region)

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        """Run the model on one letterboxed image, RGB uint8 (height, width, 3), which may have been made on a canvas.

        Raises TritonUnavailable in an outage, ModelChanged when another version has taken the place of that of `spec`
        and the answer cannot be used, TritonFailing when the model does not run, ModelUnavailable when Triton refuses
        the request or no longer serves `version`.
        """
        try:
            answer = (
                self._copied(spec, image, version) if canvas is None else self._answer(spec, image, version, canvas)
            )
        except InferenceServerException as error:
            translated = self._translated(error, spec.name, version)
            if error.status() in _REFUSED:
                self._current(spec, version)
            raise translated from error
        if answer.version != spec.version:
            spec = self._current(spec, version, answer.version)
        return Inference(answer.rows, spec, self._statistics.parts_ms(spec))

    def _current(self, used: ModelSpec, version: str, answered: str = "") -> ModelSpec:
        """The spec of the version that `answered`, read again.

        Raises ModelChanged when it asks for another letterbox than `used`, or that version is gone by now: labels of
        another one would be wrong.
        """
        if self._specs.get((used.name, version)) == used:
            self._specs.pop((used.name, version), None)
        spec = self.spec(used.name, version)
        if answered not in ("", spec.version):
            raise ModelChanged(f"version {spec.version} of {used.name} has taken the place of version {answered}")
        if spec.input != used.input:
            raise ModelChanged(f"version {spec.version} of {used.name} is served now, for images of another size")
        return spec

    def _copied(self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str) -> Answer:
        with self.canvas(spec, image.nbytes) as canvas:
            if canvas.region is not None:
                canvas(image.shape)[:] = image
            return self._answer(spec, image, version, canvas)

    def _answer(self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str, canvas: Canvas) -> Answer:
        deadline, region = time.monotonic() + self._timeout, canvas.region
        if region is None:
            return self._ask(spec.name, image_tensor(image), version, deadline)
        http = self._http if self._http is not None and self._http.is_worth_a_try() else None
        region.is_asked_for = True
        try:
            if http is None:
                answer = self._ask(spec.name, region.tensor(image.shape), version, deadline)
            else:
                answer = http.infer(region, image.shape, spec.name, version, deadline)
            region.is_asked_for = False
            return answer
        except InferenceServerException as error:
            if error.status() in OUTAGE:
                raise
            failure: Exception = error
        except HttpFailed as error:
            failure = error
        answer = self._ask(spec.name, image_tensor(image), version, deadline)
        if http is not None:  # a Triton that was started anew knows no region, which is no fault of the way
            http.give_up_for_now(failure)
        return answer

    def _ask(self, model: str, tensor: InferInput, version: str, deadline: float) -> Answer:
        seconds = max(deadline - time.monotonic(), 1e-3)
        outputs = [InferRequestedOutput(OUTPUT)]
        answer = self._client.infer(
            model, [tensor], version, outputs=outputs, client_timeout=seconds, headers=tracing.sampled()
        )
        return Answer(answer.get_response().model_version, answer.as_numpy(OUTPUT)[0])

    def _read_spec(self, model: str, version: str) -> ModelSpec:
        try:
            config = self._config(model, version)
            try:
                answer = self._ask_labels(model, version, config)
            except InferenceServerException as error:
                if error.status() not in _REFUSED or (newer := self._config(model, version)) == config:
                    raise
                answer = self._ask_labels(model, version, newer)  # the version has changed between the two questions
            config = self._config(model, answer.get_response().model_version)
        except InferenceServerException as error:
            raise self._translated(error, model, version) from error
        return read_spec(model, config, answer)

    def _config(self, model: str, version: str) -> Any:
        return self._client.get_model_config(model, version, client_timeout=self._timeout).config

    def _ask_labels(self, model: str, version: str, config: Any) -> InferResult:
        inputs, outputs = label_question(image_size(model, config))
        return self._client.infer(model, inputs, version, outputs=outputs, client_timeout=self._timeout)

    def _translated(self, error: InferenceServerException, model: str, version: str) -> Exception:
        if any(words in error.message() for words in _BUSY):
            return TritonBusy(f"Triton has too much to do for {model}: {error.message()}")
        self.forget(model)
        if is_absent(error):
            return self._absent(model, version)
        if error.status() in OUTAGE:
            return TritonUnavailable(f"Triton does not answer: {error.message()}")
        if error.status() not in _REFUSED:
            return TritonFailing(f"Triton cannot run {model}: {error.message()}")
        return ModelUnavailable(f"Triton refused the inference of {model}: {error.message()}")

    def _absent(self, model: str, version: str) -> Exception:
        """What to make of a Triton that answers and had no such version ready."""
        try:
            ready = list(self._client.get_model_metadata(model, client_timeout=self._timeout).versions)
        except InferenceServerException as error:
            return self._gone(model) if is_absent(error) else self._translated(error, model, version)
        if not ready:
            return self._gone(model)
        if version and version not in ready:
            return ModelUnavailable(f"of {model} Triton serves version {', '.join(ready)}, no longer {version}")
        return ModelChanged(f"another version of {model} is taking the place of the one that was asked")

    def _gone(self, model: str) -> Exception:
        """Of a Triton that has nothing of the model. One that stops unloads its models first, and is not live then."""
        try:
            live = self._client.is_server_live(client_timeout=self._timeout)
        except InferenceServerException:
            live = False
        if not live:
            return TritonUnavailable("Triton stops")
        since = self._absent_since.setdefault(model, time.monotonic())
        if time.monotonic() - since < _GONE_SECONDS:
            return TritonFailing(f"Triton serves no {model} at the moment")
        return ModelUnavailable(f"Triton no longer serves {model}: it was taken out of service; see GET /models")
