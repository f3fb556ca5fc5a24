"""What must be there before a request is worth sending: Redis, the model in Triton, a worker."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio as aioredis
from redis import RedisError
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway import clock
from gateway.queue.redis_server import evicting, forgetful, nearly_full, read_only, too_old
from gateway.queue.workers import CLOCK, HEARTBEAT, WORKERS_KEY, is_fresh
from gateway.redis_names import RESERVED_KEY
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics
from gateway.triton.connection import control_headers
from gateway.triton.loading import unavailable

log = logging.getLogger("gateway")

KEPT_SECONDS = 1.0  # whoever asks, Redis and Triton are not asked more often
_NO_ANSWER = "does not answer"
_ASK_SECONDS = 2.0
_WATCH_SECONDS = 5.0


class Readiness:
    """Asks Redis and Triton, at most once in KEPT_SECONDS; each question is bounded in time."""

    def __init__(self, redis: "aioredis.Redis", triton: InferenceServerClient, settings: Settings) -> None:
        self._redis = redis
        self._triton = triton
        self._model = settings.model
        self._worker_ttl = settings.worker_ttl
        self._control = control_headers(settings.triton_key)
        self._warned: set[str] = set()
        self._asking = asyncio.Lock()
        self._missing: dict[str, str] = {}
        self._asked_at = float("-inf")
        self.unavailable: dict[str, str] = {}  # models that Triton should serve and does not, by name, and why
        self.warnings: dict[str, str] = {}  # what does not keep requests from being answered, as of the last look
        self._no_model = ""  # why Triton, which answers, does not serve the model, as far as the last look has found

    async def missing(self) -> dict[str, str]:
        """What is missing, by name: `redis`, `worker`, `triton`. Empty when all is ready."""
        async with self._asking:  # who comes meanwhile takes the same answer
            if time.monotonic() - self._asked_at >= KEPT_SECONDS:
                redis_side, triton_side = await asyncio.gather(self._ask_redis(), self._ask_triton())
                self._missing, self._asked_at = redis_side | triton_side, time.monotonic()
            return self._missing

    async def _ask_redis(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                workers = await self._redis.smembers(WORKERS_KEY)
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key in workers:
                        pipe.hmget(key, HEARTBEAT, CLOCK)
                    pipe.info()
                    pipe.get(RESERVED_KEY)
                    pipe.time()
                    asked_at = clock.steady()
                    *records, info, reserved, instant = await pipe.execute()
        except (RedisError, TimeoutError) as error:
            return {"redis": f"{_NO_ANSWER}: {str(error) or 'time is up'}"}
        clock.learn(instant, asked_at)
        if problem := too_old(info) or read_only(info):
            await self._redis.connection_pool.disconnect(inuse_connections=False)  # its name may mean another by now
            return {"redis": problem}
        full = nearly_full(info, int(reserved or 0))
        lasting = {"redis_keys": evicting(info), "redis_file": forgetful(info)}
        self._warn({**lasting, "memory": full})
        alive = [off for beat, off in records if is_fresh(beat, self._worker_ttl)]
        self.warnings = _clock_warnings([off.decode() for off in alive if off], len(alive))
        self.warnings |= {kind: line for kind, line in {**lasting, "redis": full}.items() if line}
        if alive:
            return {}
        return {"worker": "no worker is alive; start one with `python -m gateway.worker`"}

    def _warn(self, warnings: Mapping[str, str | None]) -> None:
        """Once for each kind, not at every look."""
        present = {kind: warning for kind, warning in warnings.items() if warning}
        for kind in present.keys() - self._warned:
            log.warning("Redis %s", present[kind])
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
            self._no_model = ""
            return {"triton": f"{_NO_ANSWER}: {error.message()}"}
        self.unavailable = unavailable(index)
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


def without_addresses(missing: dict[str, str]) -> dict[str, str]:
    """What strangers are told: who does not answer, not where it should be."""
    return {name: _NO_ANSWER if reason.startswith(_NO_ANSWER) else reason for name, reason in missing.items()}


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
