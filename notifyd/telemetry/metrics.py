"""The numbers of one node: counted in dicts, written out in Prometheus' text format when asked.

A node has a registry of its own, so several nodes in one process keep their numbers apart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, OTHER, PREFIX, Metric, Series
from notifyd.telemetry.histogram import Histogram

Shown: TypeAlias = Callable[[], float | Mapping[Series, float]]
"""Asked for the value of a metric at each exposition: a number, or with labels one for each series."""


class Metrics(Collector):
    """Counters, gauges and histograms as the tables of `catalogue.py` declare them; all series from the start."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Series, int]] = {
            name: dict.fromkeys(metric.series(), 0) for name, metric in COUNTERS.items()
        }
        self._histograms: dict[str, dict[Series, Histogram]] = {
            name: {series: Histogram(metric.bounds) for series in metric.series()}
            for name, metric in HISTOGRAMS.items()
        }
        self._shown: dict[str, Shown] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count(self, name: str, amount: int, labels: Mapping[str, str]) -> bool:
        """Add to a counter; False when the catalogue has none of that name with those labels and values."""
        counts = self._counts.get(name)
        if counts is None:
            return False
        series = _series(COUNTERS[name], labels) if labels else ()
        if series is None or series not in counts:
            return False
        counts[series] += amount
        return True

    def observe(self, name: str, value: float, times: int, labels: Mapping[str, str]) -> bool:
        """Put a value into a histogram; False when the catalogue has none of that name with those labels and values."""
        histograms = self._histograms.get(name)
        if histograms is None:
            return False
        series = _series(HISTOGRAMS[name], labels) if labels else ()
        if series is None or series not in histograms:
            return False
        histograms[series].observe(value, times)
        return True

    def show(self, name: str, value: Shown) -> None:
        """Ask here for the value of a gauge or a counter of the catalogue. Raises KeyError for any other name."""
        (GAUGES if name in GAUGES else COUNTERS)[name]
        self._shown[name] = value

    def totals(self, name: str) -> dict[Series, float]:
        """Return the value of each series of a counter or a gauge. Raises KeyError for any other name."""
        metric = (GAUGES if name in GAUGES else COUNTERS)[name]
        shown = self._shown.get(name)
        if shown is None:
            return dict(self._counts.get(name) or dict.fromkeys(metric.series(), 0))
        value = shown()
        return {**dict.fromkeys(metric.series(), 0), **(value if isinstance(value, Mapping) else {(): value})}

    def total(self, name: str, labels: Mapping[str, str]) -> float:
        """Return the sum over the series with (at least) these labels. Raises KeyError for what is not declared."""
        names = list((GAUGES if name in GAUGES else COUNTERS)[name].labels)
        if unknown := labels.keys() - set(names):
            raise KeyError(f"{name} has no label {min(unknown)}")
        wanted = [(names.index(label), value) for label, value in labels.items()]
        return sum(
            value for series, value in self.totals(name).items() if all(series[place] == wish for place, wish in wanted)
        )

    def quantiles(self, name: str, shares: Sequence[float], now_s: float) -> list[float | None]:
        """Tell the quantiles of what a histogram without labels got in the last seconds; see Histogram."""
        return self._histograms[name][()].recent_quantiles(shares, now_s)

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[MetricFamily]:
        """Yield the families of metrics as they are now, for the registry."""
        for name, metric in COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, metric.help, labels=list(metric.labels))
            for series, amount in self.totals(name).items():
                counter.add_metric(series, amount)
            yield counter
        for name in self._shown.keys() & GAUGES.keys():
            gauge = GaugeMetricFamily(PREFIX + name, GAUGES[name].help, labels=list(GAUGES[name].labels))
            for series, value in self.totals(name).items():
                gauge.add_metric(series, value)
            yield gauge
        for name, metric in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(PREFIX + name, metric.help, labels=list(metric.labels))
            for series, values in self._histograms[name].items():
                histogram.add_metric(series, _buckets(values), values.sum)
            yield histogram


def _series(metric: Metric, labels: Mapping[str, str]) -> Series | None:
    """Put labels into their order; None where they are not those of the metric. Values of no set may be `other`."""
    if labels.keys() != metric.labels.keys():
        return None
    return tuple(
        labels[name] if labels[name] in values or OTHER not in values else OTHER
        for name, values in metric.labels.items()
    )


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, values.bounds), "+Inf"]
    return list(zip(bounds, accumulate(values.counts), strict=True))
