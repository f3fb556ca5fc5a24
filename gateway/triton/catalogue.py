"""The gateway's view of Triton: which models it serves, and what they are."""

import time
from typing import Any

import msgspec
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.errors import GatewayError, InvalidParameter, ModelMismatch, ModelNotFound, ServiceUnavailable
from gateway.triton.connection import control_headers
from gateway.triton.loading import CANDIDATE, NO_VERSION, is_absent, reason_line, unavailable, with_remedy
from gateway.triton.spec import ModelSpec, image_size, label_question, read_spec

_ASK_SECONDS = 5.0
_FRESH_SECONDS = 10.0
_TRIES = 3
_GONE = "its folder is gone from the repository; Triton serves it until it is unloaded or starts again"


class ModelInput(msgspec.Struct):
    """What the model takes, in pixels; `imgsz` is the longer side.

    `letterbox` is `rectangular` where the padding is the least that multiples of the stride need, up to `height` and
    `width`; otherwise, `square` or `fixed`, every image is padded to them.
    """

    imgsz: int
    stride: int
    letterbox: str
    height: int
    width: int


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


class UnusableModel(ServiceUnavailable):
    """Triton serves the model, and it is not one that `export` wrote, or its config was spoilt."""


class Models:
    """Asks Triton, and remembers a spec for ten seconds; in an outage an older one is good enough."""

    def __init__(self, triton: InferenceServerClient, key: str | None = None) -> None:
        self._triton = triton
        self._control = control_headers(key)
        self._specs: dict[tuple[str, str], tuple[float, ModelSpec]] = {}

    async def spec(self, model: str, version: str = "") -> ModelSpec:
        """The spec of a model. Raises InvalidParameter when Triton has no such model or version, ServiceUnavailable."""
        asked_at, known = self._specs.get((model, version), (float("-inf"), None))
        if known is not None and time.monotonic() - asked_at < _FRESH_SECONDS and await self._is_served(known):
            return known
        try:
            found = await self._ask_until_settled(model, version)
        except InferenceServerException as error:
            if known is not None:
                return known
            raise _unavailable(error) from error
        self._specs[model, version] = time.monotonic(), found
        return found

    async def _is_served(self, known: ModelSpec) -> bool:
        """A version that was taken away, or that another took the place of, is not remembered."""
        try:
            return bool(await self._triton.is_model_ready(known.name, known.version, client_timeout=_ASK_SECONDS))
        except InferenceServerException:
            return True  # an outage: what is known is good enough

    async def view(self, model: str) -> ModelView:
        """One model. Raises ModelNotFound, ServiceUnavailable, ModelMismatch."""
        index = await self._index()
        if model in (reasons := unavailable(index)):
            raise _did_not_load(model, reasons[model])
        versions = _versions(index).get(model)
        if not versions:
            raise ModelNotFound(f"Triton serves no model {model}; see GET /models")
        if not {"READY", "LOADING"} & {entry.state for entry in versions}:
            raise ModelNotFound(f"{model} was taken out of service: Triton has unloaded it; see GET /models")
        return await self._view(model, versions)

    async def listing(self, default: str) -> ModelList:
        """All models that are ready and that `export` wrote, and those that did not load. Raises ServiceUnavailable."""
        index, views = await self._index(), []
        reasons = unavailable(index)
        for name, versions in sorted(_versions(index).items()):
            try:
                views.append(await self._view(name, versions))
            except UnusableModel as error:
                reasons[name] = str(error)
            except GatewayError:
                continue  # not ready
        failed = [UnavailableModel(name, reason) for name, reason in sorted(reasons.items())]
        return ModelList(default, views, failed)

    async def _view(self, model: str, versions: list[ModelVersion]) -> ModelView:
        spec = await self.spec(model)
        height, width = spec.size_hw
        kind = ("square" if height == width else "fixed") if spec.fixed else "rectangular"
        shape = ModelInput(max(spec.size_hw), spec.stride, kind, height, width)
        return ModelView(model, versions, list(spec.labels), shape, spec.max_batch_size)

    async def _index(self) -> list[Any]:
        """What Triton finds in its repository, and what it serves although the folder is gone."""
        try:
            index = await self._triton.get_model_repository_index(headers=self._control, client_timeout=_ASK_SECONDS)
            served = await self._triton.get_inference_statistics(client_timeout=_ASK_SECONDS)
        except InferenceServerException as error:
            raise _unavailable(error) from error
        listed = {(entry.name, entry.version) for entry in index.models}
        for each in served.model_stats:
            if (each.name, each.version) not in listed and CANDIDATE not in each.name:
                index.models.add(name=each.name, version=each.version, state="READY", reason=_GONE)
        return list(index.models)

    async def _ask_until_settled(self, model: str, version: str) -> ModelSpec:
        """Raises as `spec` does, and InferenceServerException in an outage."""
        for _ in range(_TRIES):
            try:
                return await self._ask_spec(model, version)
            except InferenceServerException as error:
                if not (is_absent(error) or error.status() == "StatusCode.INVALID_ARGUMENT"):
                    raise
                if missing := await self._missing(model, version, error):
                    raise missing from error
            except ModelMismatch as error:
                raise _unusable(model, error) from error
        raise ServiceUnavailable(f"Triton changes the version of {model} at the moment, try again in a few seconds")

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

    async def _missing(self, model: str, version: str, said: InferenceServerException) -> GatewayError | None:
        """Why Triton does not serve it; None when it does by now: one version has taken another's place."""
        index = await self._index()
        states = {entry.version: entry.state for entry in index if entry.name == model and entry.version}
        ready = [number for number, state in states.items() if state == "READY"]
        if version in ready or (ready and not version):
            return None
        if model in (reasons := unavailable(index)):
            return _did_not_load(model, reasons[model])
        if not states and NO_VERSION in (said.message() or ""):  # the index does not show it
            return _did_not_load(model, with_remedy("its version_policy admits none of the versions that are there"))
        if "LOADING" in (state for number, state in states.items() if version in ("", number)):
            return ServiceUnavailable(f"Triton loads the model {model} at the moment, try again in a few seconds")
        if ready:
            return InvalidParameter(f"version={version}: of {model} Triton serves the versions {', '.join(ready)}")
        served = sorted({entry.name for entry in index if entry.state == "READY"})
        return InvalidParameter(f"model={model}: Triton serves {', '.join(served) or 'no model'}")


def _versions(index: list[Any]) -> dict[str, list[ModelVersion]]:
    models: dict[str, list[ModelVersion]] = {}
    for entry in index:
        if entry.version:
            reason = reason_line(entry.reason) if entry.reason else ""
            models.setdefault(entry.name, []).append(ModelVersion(entry.version, entry.state, reason))
    return models


def _did_not_load(model: str, reason: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"Triton does not serve the model {model}: {reason}")


def _unusable(model: str, error: ModelMismatch) -> UnusableModel:
    return UnusableModel(f"Triton serves {model}, and this service cannot use it: {error}")


def _unavailable(error: InferenceServerException) -> ServiceUnavailable:
    return ServiceUnavailable(f"Triton cannot be asked at the moment, try again in a few seconds: {error.message()}")
