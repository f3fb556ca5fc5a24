"""Many values for a metric at once: in files that processes share, each single step takes some microseconds."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Before(Collector):
    """Has something done before a page of this process is made: a registry asks its collectors in their order."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        self._do()
        return iter(())


def observe(histogram: Histogram, values: Sequence[float]) -> None:
    """What `histogram.observe` does for each, a step for each bucket and not for each value."""
    counts = Counter(bisect_left(histogram._upper_bounds, value) for value in values)
    histogram._sum.inc(sum(values))
    for place, count in counts.items():
        histogram._buckets[place].inc(count)
