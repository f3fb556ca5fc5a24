"""Why Triton does not serve a model, in one line with what to do about it."""

from collections.abc import Iterable
from typing import Any

from tritonclient.utils import InferenceServerException

# What Triton says, as UNAVAILABLE, of a version that it has unloaded: `ModelLifeCycle::GetModel` of its core.
NOT_READY = "is not at ready state"

CANDIDATE = ".candidate-"  # in the name of a model that an export tries before it publishes it

# What it says, as NOT_FOUND, of a model that has none of the versions that its policy names.
NO_VERSION = "has no available versions"

_NOTHING_LOADED = (
    "Triton has loaded nothing from its folder: it was taken out of service, its config.pbtxt is missing or "
    "Triton refuses it, or nobody asked Triton to; `make doctor` says which"
)

# What the servers and libraries say → what to do. Their sources: `src/model_config_utils.cc` of Triton's core,
# `src/loader.cc` of its tensorrt_backend, `src/onnxruntime.cc` of its onnxruntime_backend, ONNX Runtime's
# `tensorrt_execution_provider.cc`.
REMEDIES = (
    (
        "at least one version must be available under the version policy",
        "the version in use has no folder: `make export-model LIST=1` shows which there are, USE= takes one",
    ),
    (
        "admits none of the versions that are there",
        "`make export-model LIST=1` shows which there are, USE= takes one",
    ),
    (
        "KIND_GPU but no GPUs are available",
        "export it with DEVICE=cpu, or start Triton with docker-compose.gpu.yml on a host with a GPU",
    ),
    (
        "unable to create TensorRT engine",
        "an engine runs only on the GPU and with the TensorRT that it was built for: export it again on this host "
        "(DEVICE=gpu FORMAT=tensorrt)",
    ),
    (
        "could not deserialize engine from cache",
        "that file was cut short, by a full volume, or is of another TensorRT: delete it and start Triton again, which "
        "builds the engine anew",
    ),
    (
        "but the model configuration specifies",
        "config.pbtxt and the model's file do not fit together: export it again",
    ),
    (
        "has no associated shape profiles",
        "TensorRT cannot take the whole graph: export it with OPTIMIZE=cuda",
    ),
)


def is_absent(error: InferenceServerException) -> bool:
    """Whether Triton answers, and has no such model or version ready: that is no outage."""
    return error.status() == "StatusCode.NOT_FOUND" or NOT_READY in (error.message() or "")


def not_loaded(index: Iterable[Any]) -> dict[str, str]:
    """Why models did not load, by name, from the entries of Triton's repository index.

    Those that serve another version are not among them, nor those that nobody asked Triton to load.
    """
    entries = sorted(index, key=lambda entry: int(entry.version or 0))
    served = {entry.name for entry in entries if entry.state in ("READY", "LOADING")}
    failed = [entry for entry in entries if entry.state == "UNAVAILABLE" and entry.reason != "unloaded"]
    return {entry.name: with_remedy(reason_line(entry.reason)) for entry in failed if entry.name not in served}


def unavailable(index: Iterable[Any]) -> dict[str, str]:
    """As `not_loaded`, with the folders of which Triton has loaded nothing: its index has a bare name for them."""
    entries = list(index)
    bare = {entry.name: _NOTHING_LOADED for entry in entries if not entry.version and not entry.name.startswith(".")}
    return bare | not_loaded(entries)


def with_remedy(reason: str) -> str:
    """The reason, and what to do about it where that is known."""
    return next((f"{reason}; {remedy}" for words, remedy in REMEDIES if words in reason), reason)


def reason_line(reason: str) -> str:
    """One line of what Triton says; a Python backend's exception has its name before it and its place behind it."""
    words = reason.partition("\n\nAt:\n")[0].replace("Internal: TritonModelException: ", "")
    return " ".join(words.split()).rstrip("; ") or "Triton gives no reason, its log has more"
