"""Triton over gRPC: what it says of its models, and a short trial of one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from doctor.model import DEFAULT_SIDE, Batching, Counts, Load, Model, Tensor, Trial
from gateway.triton.connection import CHANNEL_ARGUMENTS, RESTRICTED, control_headers
from gateway.triton.loading import not_loaded

TIMEOUT_S = 60.0
CONNECT_S = 5.0
LOAD_S, LOAD_MOST = 3.0, 1000
LABELS_MOST = 100_000
OUTAGE = frozenset({"StatusCode.UNAVAILABLE"})


class Unreachable(Exception):
    """Nobody answers as Triton at that address; the message is Triton's client's."""


class Refused(Exception):
    """Triton answered that it will not do that; the message is its own."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the repository: whether it is served, otherwise why not."""

    name: str
    ready: bool
    reason: str


class Triton:
    """A blocking client. Every method raises Unreachable in an outage and Refused when Triton says no."""

    def __init__(self, url: str, key: str = "") -> None:
        self._client = InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS)
        self._control = control_headers(key)

    def close(self) -> None:
        self._client.close()

    def version(self) -> str:
        """The first question: any refusal of it says that this is no Triton."""
        try:
            return str(self._ask(self._client.get_server_metadata, client_timeout=CONNECT_S).version)
        except Refused as error:
            raise Unreachable(str(error)) from error

    def models(self) -> list[Listed]:
        """The models that are served or did not load, by name; those that nobody asked for are left out."""
        index = self._ask(self._client.get_model_repository_index, headers=self._control, client_timeout=CONNECT_S)
        served = self._ask(self._client.get_inference_statistics, client_timeout=CONNECT_S).model_stats
        names = {entry.name for entry in index.models if entry.state == "READY"}
        names |= {entry.name for entry in served}  # also without a folder, which the index leaves out
        ready = {name: Listed(name, True, "") for name in names}
        failed = {name: Listed(name, False, reason) for name, reason in not_loaded(index.models).items()}
        return sorted((failed | ready).values(), key=lambda listed: listed.name)

    def model(self, name: str) -> Model:
        config = self._ask(self._client.get_model_config, name, client_timeout=CONNECT_S).config
        metadata = self._ask(self._client.get_model_metadata, name, client_timeout=CONNECT_S)
        return described(config, metadata)

    def counts(self, model: str, version: str = "") -> Counts:
        """Of one version since it was loaded; of the one that served most when none is named."""
        answer = self._ask(self._client.get_inference_statistics, model, version, client_timeout=CONNECT_S)
        return max((counted(each) for each in answer.model_stats), key=lambda counts: counts.images, default=Counts())

    def trial(self, model: Model) -> Trial:
        """Ask the model a few times alone, once for two images, and then many times at once for some seconds."""
        if any(tensor.dtype is None for tensor in model.inputs):
            return Trial(refused="it takes text or another type without a size, so no request could be made up")
        before = self.counts(model.name)
        one = inputs(model, images=1)
        try:
            result, first_ms = self._timed(model.name, one)
            later_ms = sorted(self._timed(model.name, one)[1] for _ in range(5))[2]
        except Refused as error:
            return Trial(before=before, refused=str(error))
        answer = result.get_response()
        trial = Trial(
            version=answer.model_version,
            before=before,
            first_ms=None if before.executions else first_ms,
            later_ms=later_ms,
            bytes_in=sum(size(model, tensor) for tensor in model.inputs if not tensor.optional),
            bytes_out=sum(len(content) for content in answer.raw_output_contents),
            labels=self._labels(model, answer),
        )
        trial = replace(trial, **self._pair(model))
        if model.max_batch_size > 1 and not trial.pair_refused:
            trial = replace(trial, load=self._load(model, trial.version))
        return trial

    def _timed(self, model: str, given: list[InferInput]) -> tuple[InferResult, float]:
        start = time.perf_counter()
        result = self._ask(self._client.infer, model, given, client_timeout=TIMEOUT_S)
        return result, (time.perf_counter() - start) * 1000

    def _pair(self, model: Model) -> dict[str, Any]:
        """Two images in one request, where the configuration admits them."""
        free = model.max_batch_size == 0 and all(len(each.shape) == 4 and each.shape[0] < 0 for each in model.inputs)
        if model.max_batch_size < 2 and not free:
            return {}
        try:
            result, _ = self._timed(model.name, inputs(model, images=2))
        except Refused as error:
            return {"pair_tried": True, "pair_refused": str(error)}
        rows = {int(output.shape[0]) for output in result.get_response().outputs}
        return {"pair_tried": True, "pair_refused": "" if rows == {2} else "two images got one answer"}

    def _labels(self, model: Model, answer: Any) -> int | None:
        """How many labels Triton's classification extension tells; None where there is no label file or no asking."""
        outputs = {each.name for each in model.outputs if each.label_file}
        for output in answer.outputs:
            if output.name in outputs and np.prod(output.shape) <= LABELS_MOST:
                wanted = InferRequestedOutput(output.name, class_count=1 << 20)
                try:
                    result = self._ask(
                        self._client.infer, model.name, inputs(model, 1), outputs=[wanted], client_timeout=TIMEOUT_S
                    )
                except Refused:
                    return None
                rows = [entry.decode(errors="replace").split(":", 2) for entry in result.as_numpy(output.name).ravel()]
                return len({row[1] for row in rows if len(row) == 3})
        return None

    def _load(self, model: Model, version: str) -> Load:
        """Keep many requests on their way until the time is up, and count what Triton made of them."""
        at_once = min(64, max(8, 2 * model.max_batch_size * sum(model.instances.values())))
        given, free, failures = inputs(model, images=1), threading.Semaphore(at_once), []

        def ended(result: InferResult | None, error: InferenceServerException | None) -> None:
            if error is not None:
                failures.append(error)
            free.release()

        before, start, sent = self.counts(model.name, version), time.perf_counter(), 0
        while time.perf_counter() - start < LOAD_S and sent < LOAD_MOST and len(failures) < at_once:
            if free.acquire(timeout=0.1):
                self._client.async_infer(model.name, given, ended, model_version=version, client_timeout=TIMEOUT_S)
                sent += 1
        for _ in range(at_once):
            free.acquire()
        seconds = time.perf_counter() - start
        counts = self.counts(model.name, version).since(before)
        return Load(sent=sent, at_once=at_once, seconds=seconds, counts=counts, failed=len(failures))

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except InferenceServerException as error:
            message = " ".join(str(error.message()).split())
            if RESTRICTED in message:  # Triton calls it unavailable
                raise Refused("Triton asks for the key to its model control; give it with TRITON_KEY") from error
            raise (Unreachable if error.status() in OUTAGE else Refused)(message) from error


def described(config: Any, metadata: Any) -> Model:
    """The model of a ModelConfig and a ModelMetadataResponse, Triton's protobuf messages."""
    label_files = {output.name: output.label_filename for output in config.output}
    optional = {entry.name for entry in config.input if entry.optional}
    instances: dict[str, int] = {}
    kinds = config.DESCRIPTOR.fields_by_name["instance_group"].message_type.enum_types_by_name["Kind"]
    for group in config.instance_group:
        kind = kinds.values_by_number[group.kind].name
        instances[kind] = instances.get(kind, 0) + group.count * max(1, len(group.gpus))
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    dynamic = config.dynamic_batching
    return Model(
        name=config.name,
        engine=config.backend or config.platform,
        max_batch_size=config.max_batch_size,
        inputs=tuple(
            Tensor(name=each.name, datatype=each.datatype, shape=tuple(each.shape), optional=each.name in optional)
            for each in metadata.inputs
        ),
        outputs=tuple(
            Tensor(
                name=each.name,
                datatype=each.datatype,
                shape=tuple(each.shape),
                label_file=label_files.get(each.name, ""),
            )
            for each in metadata.outputs
        ),
        batching=Batching(delay_us=dynamic.max_queue_delay_microseconds, preferred=tuple(dynamic.preferred_batch_size))
        if config.HasField("dynamic_batching")
        else None,
        scheduler=next((name for name in ("sequence_batching", "ensemble_scheduling") if config.HasField(name)), ""),
        instances=instances,
        threads=whole(parameters.get("intra_op_thread_count")),
        side=whole(parameters.get("imgsz")) or DEFAULT_SIDE,
        warm_up=len(config.model_warmup) > 0,
    )


def whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def counted(statistics: Any) -> Counts:
    """The counts of a ModelStatistics, Triton's protobuf message."""
    queue = statistics.inference_stats.queue
    return Counts(
        images=statistics.inference_count,
        executions=statistics.execution_count,
        requests=queue.count,
        queue_ms=queue.ns / 1e6,
    )


def inputs(model: Model, images: int) -> list[InferInput]:
    """Made-up inputs, all zeros, of the model's own types and sizes."""
    given = []
    for tensor in model.inputs:
        if tensor.optional:
            continue
        shape = model.trial_shape(tensor, images)
        entry = InferInput(tensor.name, list(shape), tensor.datatype)
        entry.set_data_from_numpy(np.zeros(shape, tensor.dtype))
        given.append(entry)
    return given


def size(model: Model, tensor: Tensor) -> int:
    """Bytes of the tensor for one request of one image."""
    assert tensor.dtype is not None
    return int(np.prod(model.trial_shape(tensor, 1))) * tensor.dtype.itemsize
