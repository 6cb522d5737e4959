"""All numbers of a process at one moment, as data: what the workers of a node tell each other, and how it adds up."""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from notifyd.telemetry.catalogue import GAUGES, PROCESS, Series

Values: TypeAlias = dict[str, dict[Series, float]]


class Spread(msgspec.Struct, frozen=True):
    """A histogram's counts by bucket, the last one above all bounds, and the sum of its values."""

    counts: list[int]
    sum: float


class Snapshot(msgspec.Struct, frozen=True):
    """The series of every metric, by the metric's name in the catalogue."""

    counters: Values
    gauges: Values
    histograms: dict[str, dict[Series, Spread]]
    process: dict[str, float]


NOTHING = Snapshot({}, {}, {}, {})


def lasting(snapshot: Snapshot) -> Snapshot:
    """Return what stays true of a process that is gone: what it has counted."""
    process = {name: value for name, value in snapshot.process.items() if PROCESS[name].is_counter}
    return Snapshot(snapshot.counters, {}, snapshot.histograms, process)


def combined(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Make one of several: what was counted is added up, a gauge is combined as the catalogue says."""
    whole = Snapshot({}, {}, {}, {})
    for snapshot in snapshots:
        for name, values in snapshot.counters.items():
            _add(whole.counters.setdefault(name, {}), values)
        for name, values in snapshot.gauges.items():
            _add(whole.gauges.setdefault(name, {}), values, at_most=GAUGES[name].combine == "max")
        for name, spreads in snapshot.histograms.items():
            _add_spreads(whole.histograms.setdefault(name, {}), spreads)
        for name, value in snapshot.process.items():
            before = whole.process.get(name)
            whole.process[name] = value if before is None else PROCESS[name].combine(before, value)
    return whole


def _add(whole: dict[Series, float], values: dict[Series, float], *, at_most: bool = False) -> None:
    for series, value in values.items():
        before = whole.get(series, 0)
        whole[series] = max(before, value) if at_most else before + value


def _add_spreads(whole: dict[Series, Spread], spreads: dict[Series, Spread]) -> None:
    for series, spread in spreads.items():
        before = whole.get(series)
        if before is None:
            whole[series] = spread
        else:
            counts = [one + other for one, other in zip(before.counts, spread.counts, strict=True)]
            whole[series] = Spread(counts, before.sum + spread.sum)
