"""The numbers of one node: counted in a dict, written out in Prometheus' text format when asked.

A node has a registry of its own, so several nodes in one process keep their numbers apart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from notifyd.telemetry.counters import COUNTERS, GAUGES

Series = tuple[str, ...]
"""The values of a counter's labels, in the order of the table."""


class Metrics(Collector):
    """Counters and gauges as the tables of `counters.py` declare them."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Series, int]] = {name: defaultdict(int) for name in COUNTERS}
        for name, metric in COUNTERS.items():
            if not metric.labels:
                self._counts[name][()] = 0
        self._gauges: dict[str, Callable[[], int]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count(self, name: str, amount: int, labels: dict[str, str]) -> bool:
        """Add to a counter; False when the table has none of that name with those labels."""
        metric = COUNTERS.get(name)
        if metric is None or len(labels) != len(metric.labels):
            return False
        try:
            series = tuple(labels[label] for label in metric.labels)
        except KeyError:
            return False
        self._counts[name][series] += amount
        return True

    def show(self, name: str, value: Callable[[], int]) -> None:
        """Show a gauge of the table, asked for its value at each exposition. Raises KeyError for any other name."""
        GAUGES[name]
        self._gauges[name] = value

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[MetricFamily]:
        """Yield the families of metrics as they are now, for the registry."""
        for name, metric in COUNTERS.items():
            counter = CounterMetricFamily(f"notifyd_{name}", metric.help, labels=metric.labels)
            for series, amount in self._counts[name].items():
                counter.add_metric(series, amount)
            yield counter
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"notifyd_{name}", GAUGES[name].help, value=value())
