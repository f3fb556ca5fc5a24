"""What the client costs over bare httpx: processor time of the calling thread, which other load does not change."""

import statistics
import time
from collections.abc import Callable

import httpx
from yolo_gateway import Client

from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
MOST_SECONDS = 0.001


def cost(call: Callable[[], object]) -> float:
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def test_the_client_costs_at_most_a_millisecond_a_call(service: str) -> None:
    with Client(service) as client, httpx.Client(base_url=service) as bare:

        def plain() -> object:
            return bare.post("/predict", params={"wait": 10}, content=PICTURE).json()

        def ours() -> object:
            return client.predict(PICTURE)

        pairs = [(cost(ours), cost(plain)) for _ in range(60)]
    more = statistics.median(own - other for own, other in pairs[10:])
    assert more <= MOST_SECONDS, f"{more * 1000:.2f} ms"
