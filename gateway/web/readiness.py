"""What must be there before a request is worth sending: Redis, the model in Triton, a worker."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis import RedisError
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.queue.redis_server import evicting, too_old
from gateway.queue.workers import HEARTBEAT, WORKERS_KEY, is_fresh
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics
from gateway.triton.connection import control_headers
from gateway.triton.loading import unavailable

log = logging.getLogger("gateway")

_ASK_SECONDS = 2.0
_WATCH_SECONDS = 5.0


class Readiness:
    """Asks Redis and Triton afresh each time; each question is bounded in time."""

    def __init__(self, redis: "aioredis.Redis", triton: InferenceServerClient, settings: Settings) -> None:
        self._redis = redis
        self._triton = triton
        self._model = settings.model
        self._worker_ttl = settings.worker_ttl
        self._control = control_headers(settings.triton_key)
        self._warned: str | None = None
        self.unavailable: dict[str, str] = {}  # models that Triton should serve and does not, by name, and why
        self._no_model = ""  # why Triton, which answers, does not serve the model, as far as the last look has found

    async def missing(self) -> dict[str, str]:
        """What is missing, by name: `redis`, `worker`, `triton`. Empty when all is ready."""
        redis_side, triton_side = await asyncio.gather(self._ask_redis(), self._ask_triton())
        return redis_side | triton_side

    async def _ask_redis(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                workers = await self._redis.smembers(WORKERS_KEY)
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key in workers:
                        pipe.hget(key, HEARTBEAT)
                    pipe.info("server")
                    pipe.info("memory")
                    *beats, server, memory = await pipe.execute()
        except (RedisError, TimeoutError) as error:
            return {"redis": f"does not answer: {str(error) or 'time is up'}"}
        if problem := too_old(server):
            return {"redis": problem}
        self._warn(evicting(memory))
        if any(is_fresh(beat, self._worker_ttl) for beat in beats):
            return {}
        return {"worker": "no worker is alive; start one with `python -m gateway.worker`"}

    def _warn(self, warning: str | None) -> None:
        """Once for each, not at every look."""
        if warning and warning != self._warned:
            log.warning("Redis %s", warning)
        self._warned = warning

    async def no_model(self) -> str:
        """Why Triton, which answers, does not serve the default model; empty in an outage, which may end."""
        if self._no_model:
            await self._ask_triton()  # it may have been loaded since
        return self._no_model

    async def _ask_triton(self) -> dict[str, str]:
        self._no_model = ""
        try:
            ready = await self._triton.is_model_ready(self._model, client_timeout=_ASK_SECONDS)
            index = await self._index()
        except InferenceServerException as error:
            return {"triton": f"does not answer: {error.message()}"}
        self.unavailable = unavailable(index)
        if ready:
            return {}
        if reason := self.unavailable.get(self._model):
            self._no_model = f"the model {self._model} is not served: {reason}"
        elif index and not {"READY", "LOADING"} & {entry.state for entry in index if entry.name == self._model}:
            self._no_model = f"Triton has no model {self._model}: it was never exported, or taken out of service"
        return {"triton": self._no_model or f"the model {self._model} is not ready"}

    async def _index(self) -> Sequence[Any]:
        """What Triton has of each model; empty where it keeps that to itself."""
        try:
            answer = await self._triton.get_model_repository_index(headers=self._control, client_timeout=_ASK_SECONDS)
        except InferenceServerException:
            return []
        return list(answer.models)


async def watch(readiness: Readiness, metrics: GatewayMetrics) -> None:
    """Keep the metric of what is there fresh; runs until cancelled."""
    while True:
        metrics.set_ready(await readiness.missing())
        await asyncio.sleep(_WATCH_SECONDS)
