"""What the connections of one process may take together: their number, and answers that their clients do not read."""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from uvicorn.middleware.proxy_headers import _TrustedHosts

from gateway.errors import GatewayError, Overloaded, RateLimited
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics

_RETRY_SECONDS = 5
_REFUSED_AT_A_TIME = 100  # with an answer; more are cut off without one


class Connection(Protocol):
    def drop(self) -> None:
        """End it at once, whatever is still to be sent."""


class Limits:
    """Used by the event loop only. `client_of` says whose an address is."""

    def __init__(self, settings: Settings, metrics: GatewayMetrics, client_of: Callable[[str], str]) -> None:
        self._most, self._most_each = settings.max_connections, settings.max_connections_per_address
        self._most_untaken, self._most_untaken_each = settings.max_untaken_bytes, settings.max_untaken_bytes_per_client
        self._proxies = _TrustedHosts(settings.trusted_proxies or [])
        self._client_of, self._dropped = client_of, metrics.dropped
        self._connections = Counter[str]()
        self._total = 0
        self._untaken = dict[Connection, tuple[str, int]]()
        metrics.connections.set_function(lambda: self._total)
        metrics.untaken.set_function(lambda: self._untaken_bytes())

    def enter(self, address: str) -> GatewayError | None:
        """Count a connection, to be left by `leave`; why it is refused, if it is."""
        client = self._client_of(address)
        self._connections[client] += 1
        self._total += 1
        refusal: GatewayError | None = None
        if self._total > self._most:
            refusal = Overloaded(
                f"{self._most} connections are open, the most that this process takes; try again later", _RETRY_SECONDS
            )
        elif self._connections[client] > self._most_each and address not in self._proxies:
            refusal = RateLimited(
                f"{self._most_each} connections of this address are open, the most that one may have; close some first",
                _RETRY_SECONDS,
            )
        if refusal is not None:
            self._dropped.labels("connections").inc()
        return refusal

    @property
    def are_far_exceeded(self) -> bool:
        """Whether even the refused connections are too many to be answered."""
        return self._total > self._most + _REFUSED_AT_A_TIME

    def leave(self, address: str) -> None:
        client = self._client_of(address)
        self._total -= 1
        self._connections[client] -= 1
        if not self._connections[client]:
            del self._connections[client]

    def hold(self, connection: Connection, client: str, size: int) -> None:
        """An answer waits for its client. When all are too large, the oldest of the client that has most is dropped."""
        self._untaken[connection] = client, size
        while self._untaken_bytes() > self._most_untaken:
            sizes = Counter[str]()
            for owner, held in self._untaken.values():
                sizes[owner] += held
            most = sizes.most_common(1)[0][0]
            oldest = next(each for each, (owner, _) in self._untaken.items() if owner == most)
            self.free(oldest)
            self._dropped.labels("untaken").inc()
            oldest.drop()

    def free(self, connection: Connection) -> None:
        """It was taken, or its connection is gone."""
        self._untaken.pop(connection, None)

    def check_untaken(self, client: str) -> None:
        """Before a large answer is made. Raises RateLimited where the client leaves too many untaken."""
        if self._untaken_bytes(client) > self._most_untaken_each:
            raise RateLimited(
                f"answers of more than {self._most_untaken_each} bytes wait for this client; read them first",
                _RETRY_SECONDS,
            )

    def _untaken_bytes(self, client: str | None = None) -> int:
        held = list(self._untaken.values())
        return sum(size for owner, size in held if client is None or owner == client)
