"""The gateway's view of Triton: which models it serves, and what they are."""

import time
from typing import Any

import msgspec
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.errors import GatewayError, InvalidParameter, ModelNotFound, ServiceUnavailable
from gateway.triton.connection import control_headers
from gateway.triton.loading import not_loaded, reason_line
from gateway.triton.spec import ModelSpec, image_size, label_question, read_spec

_ASK_SECONDS = 5.0
_FRESH_SECONDS = 10.0


class ModelInput(msgspec.Struct, omit_defaults=True):
    """What the model takes; `imgsz` is the longer side in pixels, `letterbox` square, rectangular or fixed.

    `size_hw`, height and width in pixels, is there for a fixed one.
    """

    imgsz: int
    stride: int
    letterbox: str
    size_hw: tuple[int, int] | None = None


class ModelVersion(msgspec.Struct):
    """One version in Triton's repository, with Triton's own word for its state."""

    version: str
    state: str
    reason: str = ""


class ModelView(msgspec.Struct):
    """A model as `GET /models/<name>` shows it, straight from Triton."""

    name: str
    versions: list[ModelVersion]
    labels: list[str]
    input: ModelInput
    max_batch_size: int


class UnavailableModel(msgspec.Struct):
    """A model that Triton was asked to serve and does not, with Triton's reason."""

    name: str
    reason: str


class ModelList(msgspec.Struct):
    """What `GET /models` shows; `default` answers when no model is asked for."""

    default: str
    models: list[ModelView]
    unavailable: list[UnavailableModel] = []


class Models:
    """Asks Triton, and remembers a spec for ten seconds; in an outage an older one is good enough."""

    def __init__(self, triton: InferenceServerClient, key: str | None = None) -> None:
        self._triton = triton
        self._control = control_headers(key)
        self._specs: dict[tuple[str, str], tuple[float, ModelSpec]] = {}

    async def spec(self, model: str, version: str = "") -> ModelSpec:
        """The spec of a model. Raises InvalidParameter when Triton has no such model or version, ServiceUnavailable."""
        asked_at, known = self._specs.get((model, version), (float("-inf"), None))
        if known is not None and time.monotonic() - asked_at < _FRESH_SECONDS:
            return known
        try:
            found = await self._ask_spec(model, version)
        except InferenceServerException as error:
            if error.status() not in ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT"):
                if known is not None:
                    return known
                raise _unavailable(error) from error
            raise await self._unknown(model, version) from error
        self._specs[model, version] = time.monotonic(), found
        return found

    async def view(self, model: str) -> ModelView:
        """One model. Raises ModelNotFound, ServiceUnavailable, ModelMismatch."""
        index = await self._index()
        versions = _versions(index).get(model)
        if not versions:
            raise ModelNotFound(f"Triton serves no model {model}; see GET /models")
        if model in (reasons := not_loaded(index)):
            raise _did_not_load(model, reasons[model])
        return await self._view(model, versions)

    async def listing(self, default: str) -> ModelList:
        """All models that are ready and that `export` wrote, and those that did not load. Raises ServiceUnavailable."""
        index, views = await self._index(), []
        for name, versions in sorted(_versions(index).items()):
            try:
                views.append(await self._view(name, versions))
            except GatewayError:
                continue  # not ready, or of another make: no model of this service
        failed = [UnavailableModel(name, reason) for name, reason in sorted(not_loaded(index).items())]
        return ModelList(default, views, failed)

    async def _view(self, model: str, versions: list[ModelVersion]) -> ModelView:
        spec = await self.spec(model)
        return ModelView(model, versions, list(spec.labels), _input(spec), spec.max_batch_size)

    async def _index(self) -> list[Any]:
        try:
            index = await self._triton.get_model_repository_index(headers=self._control, client_timeout=_ASK_SECONDS)
        except InferenceServerException as error:
            raise _unavailable(error) from error
        return list(index.models)

    async def _ask_spec(self, model: str, version: str) -> ModelSpec:
        config = await self._config(model, version)
        try:
            answer = await self._ask_labels(model, version, config)
        except InferenceServerException as error:
            newer = await self._config(model, version)
            if error.status() != "StatusCode.INVALID_ARGUMENT" or newer == config:
                raise
            answer = await self._ask_labels(model, version, newer)  # the version has changed between the two questions
        return read_spec(model, await self._config(model, answer.get_response().model_version), answer)

    async def _config(self, model: str, version: str) -> Any:
        return (await self._triton.get_model_config(model, version, client_timeout=_ASK_SECONDS)).config

    async def _ask_labels(self, model: str, version: str, config: Any) -> Any:
        inputs, outputs = label_question(image_size(model, config))
        return await self._triton.infer(model, inputs, version, outputs=outputs, client_timeout=_ASK_SECONDS)

    async def _unknown(self, model: str, version: str) -> GatewayError:
        index = await self._index()
        if model in (reasons := not_loaded(index)):
            return _did_not_load(model, reasons[model])
        versions = _versions(index)
        if model not in versions:
            return InvalidParameter(f"model={model}: Triton serves {', '.join(sorted(versions)) or 'no model'}")
        there = ", ".join(entry.version for entry in versions[model] if entry.state == "READY")
        return InvalidParameter(f"version={version}: of {model} Triton serves the versions {there or 'none'}")


def _input(spec: ModelSpec) -> ModelInput:
    if isinstance(spec.imgsz, int):
        return ModelInput(spec.imgsz, spec.stride, "square" if spec.square else "rectangular")
    return ModelInput(max(spec.imgsz), spec.stride, "fixed", spec.imgsz)


def _versions(index: list[Any]) -> dict[str, list[ModelVersion]]:
    models: dict[str, list[ModelVersion]] = {}
    for entry in index:
        if entry.version:
            reason = reason_line(entry.reason) if entry.reason else ""
            models.setdefault(entry.name, []).append(ModelVersion(entry.version, entry.state, reason))
    return models


def _did_not_load(model: str, reason: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"Triton could not load the model {model}: {reason}")


def _unavailable(error: InferenceServerException) -> ServiceUnavailable:
    return ServiceUnavailable(f"Triton cannot be asked at the moment, try again in a few seconds: {error.message()}")
