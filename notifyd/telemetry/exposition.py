"""Numbers in Prometheus' text format."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, PREFIX, PROCESS, Metric
from notifyd.telemetry.snapshot import Snapshot, Spread


def write_exposition(snapshot: Snapshot) -> bytes:
    """Write everything in Prometheus' text format, version 0.0.4, in the order of the catalogue."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    return generate_latest(registry)


def measure_process() -> dict[str, float]:
    """Return what the system says of this process, by the names of `PROCESS`; nothing where there is no /proc."""
    collector = ProcessCollector(registry=None)
    samples = (sample for family in collector.collect() for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.name in PROCESS}


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[MetricFamily]:
        """Yield the families of metrics, for the registry."""
        for name, metric in COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, metric.help, labels=_labels(metric))
            for series, amount in self._snapshot.counters.get(name, {}).items():
                counter.add_metric(series, amount)
            yield counter
        for name, metric in GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, metric.help, labels=_labels(metric))
            for series, value in self._snapshot.gauges.get(name, {}).items():
                gauge.add_metric(series, value)
            yield gauge
        for name, metric in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(PREFIX + name, metric.help, labels=_labels(metric))
            for series, spread in self._snapshot.histograms.get(name, {}).items():
                histogram.add_metric(series, _buckets(metric, spread), spread.sum)
            yield histogram
        for name, value in self._snapshot.process.items():
            family = CounterMetricFamily if PROCESS[name].is_counter else GaugeMetricFamily
            yield family(name, PROCESS[name].help, value=value)


def _labels(metric: Metric) -> list[str]:
    return list(metric.labels)


def _buckets(metric: Metric, spread: Spread) -> list[tuple[str, float]]:
    return list(zip([*map(str, metric.bounds), "+Inf"], accumulate(spread.counts), strict=True))
