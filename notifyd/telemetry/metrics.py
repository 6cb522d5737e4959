"""The numbers of one node: counted in dicts, taken down as a snapshot when asked.

Each node has its own, so several nodes in one process keep their numbers apart.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, OTHER, Metric, Series
from notifyd.telemetry.histogram import Histogram
from notifyd.telemetry.snapshot import Snapshot, Spread

Shown: TypeAlias = Callable[[], float | Mapping[Series, float]]
"""Asked for the value of a metric at each exposition: a number, or with labels one for each series."""


class Metrics:
    """Counters, gauges and histograms as the tables of `catalogue.py` declare them; all series from the start."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Series, int]] = {
            name: dict.fromkeys(metric.series(), 0) for name, metric in COUNTERS.items()
        }
        self._histograms: dict[str, dict[Series, Histogram]] = {
            name: {series: Histogram(metric.bounds) for series in metric.series()}
            for name, metric in HISTOGRAMS.items()
        }
        self._declared = {**COUNTERS, **HISTOGRAMS}
        self._names = {name: tuple(metric.labels) for name, metric in self._declared.items()}
        self._shown: dict[str, Shown] = {}

    def count(self, name: str, amount: int, labels: Mapping[str, str]) -> bool:
        """Add to a counter; False when the catalogue has none of that name with those labels and values."""
        series = self._find(self._counts, name, labels)
        if series is None:
            return False
        self._counts[name][series] += amount
        return True

    def observe(self, name: str, value: float, times: int, labels: Mapping[str, str]) -> bool:
        """Put a value into a histogram; False when the catalogue has none of that name with those labels and values."""
        series = self._find(self._histograms, name, labels)
        if series is None:
            return False
        self._histograms[name][series].observe(value, times)
        return True

    def _find(self, kept: Mapping[str, Mapping[Series, object]], name: str, labels: Mapping[str, str]) -> Series | None:
        """Return the series of these labels, soonest for who gives them in their order; None where there is none."""
        known = kept.get(name)
        if known is None:
            return None
        series = tuple(labels.values())
        if series in known and tuple(labels) == self._names[name]:
            return series
        ordered = _series(self._declared[name], labels)
        return ordered if ordered in known else None

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

    def snapshot(self) -> Snapshot:
        """Take down all numbers as they are now."""
        from notifyd.telemetry.exposition import measure_process  # noqa: PLC0415 - not every node is asked

        return Snapshot(
            counters={name: self.totals(name) for name in COUNTERS},
            gauges={name: self.totals(name) for name in GAUGES if name in self._shown},
            histograms={
                name: {series: Spread(list(values.counts), values.sum) for series, values in histograms.items()}
                for name, histograms in self._histograms.items()
            },
            process=measure_process(),
        )


def _series(metric: Metric, labels: Mapping[str, str]) -> Series | None:
    """Put labels into their order; None where they are not those of the metric. Values of no set may be `other`."""
    if labels.keys() != metric.labels.keys():
        return None
    return tuple(
        labels[name] if labels[name] in values or OTHER not in values else OTHER
        for name, values in metric.labels.items()
    )
