"""Triton's own account of an inference."""

import threading
import time

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gateway.triton.spec import ModelSpec

_STATISTICS_SECONDS = 1.0


class Statistics:
    """Triton's queue and compute times per image, asked for at most once a second."""

    def __init__(self, client: InferenceServerClient) -> None:
        self._client = client
        self._asking = threading.Lock()
        self._asked_at: dict[tuple[str, str], float] = {}
        self._sums: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._parts_ms: dict[tuple[str, str], dict[str, float]] = {}

    def parts_ms(self, spec: ModelSpec) -> dict[str, float]:
        """`triton_queue` and `triton_compute`, milliseconds; empty when Triton does not tell."""
        key = spec.name, spec.version
        if time.monotonic() - self._asked_at.get(key, float("-inf")) > _STATISTICS_SECONDS:
            if self._asking.acquire(blocking=False):
                try:
                    self._ask(key)
                finally:
                    self._asking.release()
        return self._parts_ms.get(key, {})

    def _ask(self, key: tuple[str, str]) -> None:
        self._asked_at[key] = time.monotonic()
        try:
            answer = self._client.get_inference_statistics(*key, client_timeout=_STATISTICS_SECONDS)
        except InferenceServerException:
            return  # the inference itself went well: an older figure, or none, will do
        statistics = answer.model_stats[0].inference_stats
        computed_ns = statistics.compute_input.ns + statistics.compute_infer.ns + statistics.compute_output.ns
        sums = statistics.success.count, statistics.queue.ns, computed_ns
        count, queue_ns, compute_ns = (new - old for new, old in zip(sums, self._sums.get(key, (0, 0, 0)), strict=True))
        self._sums[key] = sums
        if count > 0:
            queue_ms, compute_ms = round(queue_ns / count / 1e6, 2), round(compute_ns / count / 1e6, 2)
            self._parts_ms[key] = {"triton_queue": queue_ms, "triton_compute": compute_ms}
