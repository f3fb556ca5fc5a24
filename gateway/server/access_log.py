"""Each request counted, timed and logged in one line."""

import logging
import re
from collections.abc import Sequence
from urllib.parse import quote

from prometheus_client import Counter, Histogram
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from gateway.telemetry import logs
from gateway.telemetry.metrics import GatewayMetrics

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TASK_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_POLLED = frozenset({"/livez", "/readyz", "/status"})


class AccessLog:
    """Labels are bounded: a path that no route has counts as `none`."""

    def __init__(self, metrics: GatewayMetrics, routes: Sequence[BaseRoute]) -> None:
        self._metrics = metrics
        self._paths: dict[object, str] = {route.endpoint: route.path for route in routes if isinstance(route, Route)}
        self._series: dict[tuple[str, str, int, str], tuple[Counter, Histogram]] = {}
        self.in_flight = 0
        metrics.in_flight.set_function(lambda: self.in_flight)

    def route(self, scope: Scope) -> str:
        """Of a request that has been answered."""
        return self._paths.get(scope.get("endpoint"), "none")

    def note(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        waited = "yes" if scope["state"].get("waits") or route.endswith("/events") else "no"
        requests, duration = self._series_of(method, route, status, waited)
        requests.inc()
        duration.observe(seconds)
        task = scope["path_params"].get("task_id") if "path_params" in scope else None
        if task and _TASK_ID.fullmatch(task):
            logs.task_id.set(task)
        log.log(
            logging.DEBUG if route in _POLLED else logging.INFO,
            "%s %s",
            method,
            route if route != "none" else quote(scope["path"])[:200],
            extra={"status": status, "ms": round(seconds * 1e3, 1)},
        )

    def _series_of(self, *labels: *tuple[str, str, int, str]) -> tuple[Counter, Histogram]:
        """Kept: to look both up by their labels takes as long as to count."""
        found = self._series.get(labels)
        if found is None:
            method, route, status, waited = labels
            found = (
                self._metrics.requests.labels(method, route, str(status)),
                self._metrics.duration.labels(route, waited),
            )
            self._series[labels] = found
        return found
