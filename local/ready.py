"""When the stack is ready, and what `make run` says then."""

import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.settings import Settings
from gateway.triton.connection import CHANNEL_ARGUMENTS, control_headers
from gateway.triton.loading import not_loaded
from local import triton
from local.model import DEMO_NAME
from local.stack import READY_SECONDS, ask


def wait_until_ready(
    settings: Settings, stopping: threading.Event, say: Callable[[str], None], stack: Mapping[str, Any]
) -> str | None:
    """Say the ready lines once all is ready; otherwise return what is missing when the time is up."""
    deadline = time.monotonic() + READY_SECONDS
    missing = "the gateway does not answer"
    while not stopping.wait(0.2):
        status, body = ask(reachable(settings.host), settings.port, "/status")
        if status:
            lacking: dict[str, str] = json.loads(body).get("missing", {})
            failed = not_served(stack["triton"], settings.triton_key)
            others = sorted(set(triton.models(Path(stack["triton"]["repository"]))) - set(failed))
            if settings.model in failed and not others:
                return f"the model {settings.model} did not load: {failed[settings.model]}"
            answers = not lacking.get("triton", "").startswith("does not answer")
            if not lacking or (set(lacking) == {"triton"} and answers and settings.model in failed):
                for name, reason in failed.items():
                    say(f"The model {name} did not load, the others are served: {reason}")
                say(where_line(stack))
                say(ready_line(settings, others[0] if settings.model in failed else settings.model))
                return None
            missing = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        if time.monotonic() > deadline:
            return f"not ready after {READY_SECONDS} s: {missing}"
    return None


def not_served(server: Mapping[str, str], key: str | None) -> dict[str, str]:
    """The models that Triton should have loaded at its start and does not serve, with the reason and what to do."""
    with InferenceServerClient(server["grpc"], channel_args=CHANNEL_ARGUMENTS) as client:
        try:
            index = client.get_model_repository_index(headers=control_headers(key), client_timeout=5).models
        except InferenceServerException:
            return {}  # it still starts: it answers once it has tried each model
    served = {entry.name for entry in index if entry.state == "READY"}
    reasons, failed = not_loaded(index), {}
    repository = Path(server["repository"])
    for name in sorted(set(triton.meant(repository)) - served):
        reason = reasons.get(name) or triton.unfit(repository / name) or triton.failure(Path(server["log"]), name)
        again = (
            f"write it again with `make export-model MODEL={shlex.quote(name)}` (WEIGHTS=path.pt for one of your own)"
        )
        failed[name] = f"{reason}; {again}"
    return failed


def where_line(stack: Mapping[str, Any]) -> str:
    parts = ("gateway", "workers", "triton")
    pages = [f"{name} {' '.join(pages_of(stack[name]))}" for name in parts if "metrics" in stack[name]]
    return f"Metrics: {', '.join(pages)}. Triton answers gRPC at {stack['triton']['grpc']}."


def pages_of(part: Mapping[str, Any]) -> list[str]:
    """The metrics of each of its processes."""
    return list(part.get("metrics_of_all", [part["metrics"]]))


def ready_line(settings: Settings, model: str) -> str:
    """`model` is one that is served: the default, or another where that did not load."""
    url = f"http://{reachable(settings.host)}:{settings.port}"
    key = "-H 'X-API-Key: YOUR KEY' " if settings.api_keys or settings.api_keys_file else ""
    choice = "" if model == settings.model else f"&model={model}"
    command = f"curl -s {key}-F image=@{shlex.quote(sample_image(model))} '{url}/predict?wait=30{choice}'"
    return f"Ready: {url} serves {model}. Ctrl-C stops it. Try:  {command}"


def reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def sample_image(model: str) -> str:
    """A picture at hand that the model finds something in."""
    if model == DEMO_NAME:
        return "demo/shapes/images/0.jpg"
    found = sorted(Path(sys.prefix).glob("lib/python*/site-packages/ultralytics/assets/bus.jpg"))
    if not found:
        return "photo.jpg"
    return str(found[0].relative_to(Path.cwd()) if found[0].is_relative_to(Path.cwd()) else found[0])
