"""`python -m local`: Redis, Triton, workers and gateway in the foreground, without Docker.

With `--export` a model that is not there yet is exported first.
"""

import fcntl
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import redis
from honcho.environ import parse_procfile
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.security.exposure import check_exposure
from gateway.settings import Settings, SettingsError, load
from gateway.triton.connection import CHANNEL_ARGUMENTS, control_headers
from gateway.triton.loading import not_loaded
from local import ports, triton
from local.errors import LocalError
from local.model import DEMO_NAME, prepare
from local.supervisor import Supervisor

READY_SECONDS = 90
STATE = "stack.json"  # in RUN_DIR while the stack runs: where its parts answer
DEFAULT_WORKERS = 2


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends a running export too
    try:
        return run(os.environ)
    except LocalError as error:
        print(f"local: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def run(given: Mapping[str, str]) -> int:
    """Start everything, say when it is ready, stop everything. Raises LocalError when it cannot start or breaks."""
    settings = read_settings(given)
    repository = Path(given.get("MODEL_REPOSITORY") or triton.ROOT / "model_repository").resolve()
    run_dir = Path(given.get("RUN_DIR") or triton.ROOT / ".run").resolve()
    ports.check_free(settings.host, settings.port)
    chosen = ports.choose(given, settings.port)
    if "--export" in sys.argv[1:]:
        weights = Path(given["WEIGHTS"]).resolve() if given.get("WEIGHTS") else None
        settings = msgspec.structs.replace(settings, model=prepare(repository, settings.model, weights))
    check_model(repository, settings.model)
    with lock(run_dir):
        shutil.rmtree(run_dir / "metrics", ignore_errors=True)  # the counts of the last run's workers
        key = settings.triton_key or new_triton_key(run_dir)
        settings = msgspec.structs.replace(settings, triton_key=key)
        environment = {
            "DRAIN_SECONDS": "0",  # nobody else is asked whether this gateway is ready
            **given,
            **addresses(given, chosen),
            "MODEL": settings.model,
            "TRITON_KEY": key,
            "TRITON_MEMORY_KEY": given.get("TRITON_MEMORY_KEY", secrets.token_hex(16)),  # empty: images go as bytes
            "PYTHON": sys.executable,
            "PYTHONUNBUFFERED": "1",
            "MODEL_REPOSITORY": str(repository),
            "RUN_DIR": str(run_dir),
        }
        stack = running(settings, chosen, repository, run_dir)
        state = run_dir / STATE
        try:
            state.write_text(json.dumps(stack, indent=1) + "\n")
            return supervise(settings, environment, worker_count(given), stack)
        finally:
            state.unlink(missing_ok=True)


def new_triton_key(run_dir: Path) -> str:
    """A key to Triton's model control, for the gateway, and in a file for `make export-model` and `make doctor`."""
    key, path = secrets.token_hex(16), run_dir / "triton.key"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key)
    return key


def running(settings: Settings, chosen: Mapping[str, int], repository: Path, run_dir: Path) -> dict[str, Any]:
    """Where the parts of the stack answer: what STATE holds, as JSON. A page that was switched off is left out."""
    metrics_host = reachable(settings.metrics_host)

    def page(host: str, setting: str) -> dict[str, str]:
        return {"metrics": f"http://{host}:{chosen[setting]}/metrics"} if chosen[setting] else {}

    return {
        "pid": os.getpid(),
        "model": settings.model,
        "gateway": {
            "url": f"http://{reachable(settings.host)}:{settings.port}",
            **page(metrics_host, "METRICS_PORT"),
        },
        "workers": page(metrics_host, "WORKER_METRICS_PORT"),
        "triton": {
            "http": f"127.0.0.1:{chosen['TRITON_HTTP_PORT']}",
            "grpc": f"127.0.0.1:{chosen['TRITON_GRPC_PORT']}",
            **page("127.0.0.1", "TRITON_METRICS_PORT"),
            "repository": str(repository),
            "log": str(run_dir / triton.LOG),
        },
    }


def supervise(settings: Settings, environment: dict[str, str], workers: int, stack: Mapping[str, Any]) -> int:
    failures: list[str] = []

    def watch() -> None:
        missing = wait_until_ready(settings, supervisor.stopping, supervisor.console.say, stack)
        if missing:
            failures.append(missing)
            supervisor.terminate()

    supervisor = Supervisor(when_started=threading.Thread(target=watch, daemon=True).start)
    own_redis = "LOCAL_REDIS_PORT" in environment
    counts = {"redis": int(own_redis), "worker": workers}
    for name, command in parse_procfile((Path(__file__).parent / "Procfile").read_text()).processes.items():
        for number in range(1, counts.get(name, 1) + 1):
            supervisor.add_process(f"{name}.{number}", command, env=environment, cwd=str(triton.ROOT))
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    supervisor.console.say(f"Starting {'Redis, ' if own_redis else ''}Triton, {workers} workers and the gateway ...")
    try:
        supervisor.loop()
    finally:
        triton.clear(int(environment["TRITON_GRPC_PORT"]))
    if supervisor.ended:
        failures.append(cause(supervisor, Path(environment["RUN_DIR"])))
    if failures:
        raise LocalError(failures[0])
    return 0


def wait_until_ready(
    settings: Settings, stopping: threading.Event, say: Callable[[str], None], stack: Mapping[str, Any]
) -> str | None:
    """Say the ready lines once all is ready; otherwise return what is missing when the time is up."""
    deadline = time.monotonic() + READY_SECONDS
    missing = "the gateway does not answer"
    while not stopping.wait(0.2):
        status, body = ask(reachable(settings.host), settings.port, "/readyz")
        if status:
            failed = not_served(stack["triton"], settings.triton_key)
            if settings.model in failed:
                return f"the model {settings.model} did not load: {failed[settings.model]}"
        if status == 200:
            for name, reason in failed.items():
                say(f"The model {name} did not load, the others are served: {reason}")
            say(where_line(stack))
            say(ready_line(settings))
            return None
        if status:
            missing = "; ".join(f"{name}: {reason}" for name, reason in json.loads(body).get("missing", {}).items())
        if time.monotonic() > deadline:
            return f"not ready after {READY_SECONDS} s: {missing}"
    return None


def not_served(server: Mapping[str, str], key: str | None) -> dict[str, str]:
    """The models that Triton was told to load at its start and does not serve, with the reason and what to do."""
    with InferenceServerClient(server["grpc"], channel_args=CHANNEL_ARGUMENTS) as client:
        try:
            index = client.get_model_repository_index(headers=control_headers(key), client_timeout=5).models
        except InferenceServerException:
            return {}  # it still starts: it answers once it has tried each model
    served = {entry.name for entry in index if entry.state == "READY"}
    reasons, failed = not_loaded(index), {}
    for name in sorted(set(triton.models(Path(server["repository"]))) - served):
        reason = reasons.get(name) or triton.failure(Path(server["log"]), name)
        again = f"write it again with `make export-model MODEL={name}` (WEIGHTS=path.pt for one of your own)"
        failed[name] = f"{reason}; {again}"
    return failed


def ask(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET; status 0 where nobody answers. No proxy is asked."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def where_line(stack: Mapping[str, Any]) -> str:
    parts = ("gateway", "workers", "triton")
    pages = [f"{name} {stack[name]['metrics']}" for name in parts if "metrics" in stack[name]]
    return f"Metrics: {', '.join(pages)}. Triton answers gRPC at {stack['triton']['grpc']}."


def ready_line(settings: Settings) -> str:
    url = f"http://{reachable(settings.host)}:{settings.port}"
    key = "-H 'X-API-Key: YOUR KEY' " if settings.api_keys or settings.api_keys_file else ""
    command = f"curl -s {key}-F image=@{shlex.quote(sample_image(settings.model))} '{url}/predict?wait=30'"
    return f"Ready: {url} serves {settings.model}. Ctrl-C stops it. Try:  {command}"


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


def cause(supervisor: Supervisor, run_dir: Path) -> str:
    """Why the stack ended: which process was first, and its own words."""
    assert supervisor.ended is not None
    name, status = supervisor.ended
    words = supervisor.console.last_words(name)
    if name.startswith("triton") and not words:
        words = f"{triton.failure(run_dir / triton.LOG)} (log: {run_dir / triton.LOG})"
    ending = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return f"{name} {ending}, so all was stopped: {words or 'it said nothing'}"


def read_settings(given: Mapping[str, str]) -> Settings:
    try:
        settings = load(given)
        check_exposure(settings)
        return settings
    except SettingsError as error:
        raise LocalError(str(error)) from error


def worker_count(given: Mapping[str, str]) -> int:
    text = given.get("WORKERS") or str(DEFAULT_WORKERS)
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise LocalError(f"WORKERS={text}: give a whole number from 1 to 256")
    return int(text)


def check_model(repository: Path, name: str) -> None:
    names = triton.models(repository)
    if name not in names:
        there = f"; there are: {', '.join(names)}" if names else ""
        raise LocalError(f"no model {name} in {repository}{there}; run `make export-model MODEL={name}`")


def addresses(given: Mapping[str, str], chosen: Mapping[str, int]) -> dict[str, str]:
    """The settings that say where Triton and the metrics are, and Redis: on a free port unless REDIS_URL names one."""
    found = {setting: str(port) for setting, port in chosen.items()}
    found["TRITON_URL"] = f"127.0.0.1:{chosen['TRITON_GRPC_PORT']}"
    url = given.get("REDIS_URL")
    if not url:
        (port,) = ports.free_ports(1)
        return {**found, "LOCAL_REDIS_PORT": str(port), "REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as connection:
            connection.ping()
    except (redis.RedisError, ValueError, TypeError) as error:  # TypeError: an unknown option in the URL
        raise LocalError(f"REDIS_URL names a Redis that does not answer: {error}") from error
    return found


def lock(run_dir: Path) -> IO[str]:
    """One stack per RUN_DIR: two servers must not write the same files."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = (run_dir / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise LocalError(f"another stack runs on {run_dir}; stop it, or set RUN_DIR to another folder") from error
    return file


if __name__ == "__main__":
    sys.exit(main())
