"""Whether this gateway can accept, for which Redis is enough, and the whole picture: Triton, models, workers, queue.

What comes and goes by itself keeps no upload from being accepted: with no worker or no Triton tasks wait in the queue,
and what scales by that queue sees them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import redis.asyncio as aioredis
from redis import RedisError
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway import clock
from gateway.queue.redis_server import evicting, forgetful, nearly_full, read_only, too_old
from gateway.queue.workers import CLOCK, HEARTBEAT, KNOWN_FORMAT, WORKERS_KEY, is_fresh, older
from gateway.redis_names import OPEN_KEY, QUEUE_KEY, RESERVED_KEY, WEBHOOKS_KEY
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics
from gateway.triton.connection import control_headers
from gateway.triton.loading import CANDIDATE, unavailable

log = logging.getLogger("gateway")

KEPT_SECONDS = 1.0  # whoever asks, Redis and Triton are not asked more often
_NO_ANSWER = "does not answer"
_ASK_SECONDS = 2.0
_WATCH_SECONDS = 5.0


class WorkerCounts(msgspec.Struct, frozen=True):
    """Worker processes whose heartbeat is fresh; `busy` ones run a task."""

    alive: int
    busy: int


class QueueCounts(msgspec.Struct, frozen=True):
    """`open` tasks are accepted and not ended, `queued` ones of them wait for a worker; deliveries of webhooks."""

    open: int
    queued: int
    webhooks: int


class Readiness:
    """Asks Redis and Triton, each at most once in KEPT_SECONDS; each question is bounded in time."""

    def __init__(self, redis: "aioredis.Redis", triton: InferenceServerClient, settings: Settings) -> None:
        self._redis = redis
        self._triton = triton
        self._model = settings.model
        self._worker_ttl = settings.worker_ttl
        self._control = control_headers(settings.triton_key)
        self._warned: set[str] = set()
        self._redis_side, self._triton_side = _Kept(self._ask_redis), _Kept(self._ask_triton)
        # As of the last look; what cannot be known is None.
        self.unavailable: dict[str, str] = {}  # models that Triton should serve and does not, by name, and why
        self.warnings: dict[str, str] = {}  # what does not keep requests from being answered
        self.models: list[str] | None = None
        self.workers: WorkerCounts | None = None
        self.queue: QueueCounts | None = None
        self._no_model = ""  # why Triton, which answers, does not serve the model, as far as the last look has found

    async def refusing(self) -> dict[str, str]:
        """What keeps this gateway from accepting anything: `redis`, with the reason. Empty when it can.

        A Redis that is full does not: results are read and tasks canceled, and no other gateway has another Redis.
        """
        redis_side = await self._redis_side()
        return {name: reason for name, reason in redis_side.items() if name == "redis"}

    async def missing(self) -> dict[str, str]:
        """What is missing, by name: `redis`, `worker`, `triton`. Empty when all is ready."""
        redis_side, triton_side = await asyncio.gather(self._redis_side(), self._triton_side())
        return redis_side | triton_side

    async def _ask_redis(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                workers: set[bytes] = await self._redis.smembers(WORKERS_KEY)  # type: ignore[assignment]
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key in workers:
                        pipe.hmget(key, HEARTBEAT, CLOCK, KNOWN_FORMAT)
                        pipe.scard(key + b":executions")
                    pipe.hlen(OPEN_KEY)
                    pipe.llen(QUEUE_KEY)
                    pipe.zcard(WEBHOOKS_KEY)
                    pipe.info()
                    pipe.get(RESERVED_KEY)
                    pipe.time()
                    asked_at = clock.steady()
                    *records, opened, queued, webhooks, info, reserved, instant = await pipe.execute()
        except (RedisError, TimeoutError) as error:
            self.workers = self.queue = None
            return {"redis": f"{_NO_ANSWER}: {str(error) or 'time is up'}"}
        clock.learn(instant, asked_at)
        if problem := too_old(info) or read_only(info):
            await self._redis.connection_pool.disconnect(inuse_connections=False)  # its name may mean another by now
            return {"redis": problem}
        full = nearly_full(info, int(reserved or 0))
        lasting = {"redis_keys": evicting(info), "redis_file": forgetful(info)}
        running = zip(records[::2], records[1::2], strict=True)
        alive = [(*said, tasks) for (beat, *said), tasks in running if is_fresh(beat, self._worker_ttl)]
        self.workers = WorkerCounts(len(alive), sum(tasks > 0 for _, _, tasks in alive))
        self.queue = QueueCounts(opened, queued, webhooks)
        versions = {"worker_version": older([known for _, known, _ in alive])}
        self._warn({kind: f"Redis {line}" for kind, line in {**lasting, "memory": full}.items() if line} | versions)
        self.warnings = _clock_warnings([off.decode() for off, _, _ in alive if off], len(alive))
        self.warnings |= {kind: line for kind, line in {**lasting, "redis": full, **versions}.items() if line}
        if alive:
            return {}
        return {"worker": "no worker is alive; start one with `python -m gateway.worker`"}

    def _warn(self, warnings: Mapping[str, str | None]) -> None:
        """Once for each kind, not at every look."""
        present = {kind: warning for kind, warning in warnings.items() if warning}
        for kind in present.keys() - self._warned:
            log.warning("%s", present[kind])
        self._warned = set(present)

    async def no_model(self) -> str:
        """Why Triton, which answers, does not serve the default model; empty in an outage, which may end."""
        if self._no_model:
            await self._ask_triton()  # it may have been loaded since
        return self._no_model

    async def _ask_triton(self) -> dict[str, str]:
        try:
            ready = await self._triton.is_model_ready(self._model, client_timeout=_ASK_SECONDS)
            index = await self._index()
        except InferenceServerException as error:
            self._no_model, self.models = "", None
            return {"triton": f"{_NO_ANSWER}: {error.message()}"}
        self.unavailable, self.models = unavailable(index), _served(index) or ([self._model] if ready else [])
        self._no_model = "" if ready else self._why_absent(index)
        return {} if ready else {"triton": self._no_model or f"the model {self._model} is not ready"}

    def _why_absent(self, index: Sequence[Any]) -> str:
        """Empty while it is being loaded, and where Triton keeps its index to itself."""
        if reason := self.unavailable.get(self._model):
            return f"the model {self._model} is not served: {reason}"
        if not index or {"READY", "LOADING"} & {entry.state for entry in index if entry.name == self._model}:
            return ""
        return f"Triton has no model {self._model}: it was never exported, or taken out of service"

    async def _index(self) -> Sequence[Any]:
        """What Triton has of each model; empty where it keeps that to itself."""
        try:
            answer = await self._triton.get_model_repository_index(headers=self._control, client_timeout=_ASK_SECONDS)
        except InferenceServerException:
            return []
        return list(answer.models)


class _Kept:
    """An answer that is kept for KEPT_SECONDS; who comes while it is asked for takes the same."""

    def __init__(self, ask: Callable[[], Awaitable[dict[str, str]]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._answer: dict[str, str] = {}
        self._asked_at = float("-inf")

    async def __call__(self) -> dict[str, str]:
        async with self._asking:
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                self._answer, self._asked_at = await self._ask(), time.monotonic()
            return self._answer


def _served(index: Sequence[Any]) -> list[str]:
    """The models that are ready, but those that an export tries; empty where Triton keeps its index to itself."""
    return sorted({entry.name for entry in index if entry.state == "READY" and CANDIDATE not in entry.name})


def without_addresses(missing: dict[str, str]) -> dict[str, str]:
    """What strangers are told: who does not answer, not where it should be."""
    return {name: _NO_ANSWER if reason.startswith(_NO_ANSWER) else reason for name, reason in missing.items()}


def without_names(missing: dict[str, str]) -> dict[str, str]:
    """What they are told where keys are asked for: no names of models, nor what Triton says of them."""
    told = without_addresses(missing)
    return {name: "not served" if name == "triton" and why != _NO_ANSWER else why for name, why in told.items()}


def _clock_warnings(workers_off: list[str], workers: int) -> dict[str, str]:
    found = {}
    if problem := clock.problem():
        found["clock"] = f"gateway: {problem}"
    if workers_off:
        found["worker_clock"] = f"{len(workers_off)} of {workers} workers do no maintenance: {workers_off[0]}"
    return found


async def watch(readiness: Readiness, metrics: GatewayMetrics) -> None:
    """Keep the metric of what is there fresh, and log what comes to be missing; runs until cancelled."""
    known: dict[str, str] = {}
    while True:
        missing = await readiness.missing()
        metrics.set_ready(missing)
        metrics.clock_ahead.set(clock.host_ahead())
        if missing.keys() - known.keys():
            log.warning("not ready: %s", "; ".join(f"{name}: {reason}" for name, reason in missing.items()))
        known = missing
        await asyncio.sleep(_WATCH_SECONDS)
