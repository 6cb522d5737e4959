"""From what the load processes tell to the samples of a running load, and to the figures of its measured part."""

from collections import Counter
from collections.abc import Callable, Sequence

from notifyd.bench.histogram import LatencyHistogram
from notifyd.bench.orders import TICK_S, LoadSnapshot
from notifyd.bench.report import Sample
from notifyd.bench.vitals import Usage, Vitals

_LEAST_NS = TICK_S * 0.8e9
"""Processes tell at the same moments; one that was held up must not make an interval of nothing."""


class Sampler:
    """Makes a sample whenever every process has told of another interval. `phase` is what is under way."""

    def __init__(self, vitals: Vitals, on_sample: Callable[[Sample], None], began_ns: int) -> None:
        self.phase = "connect"
        self.samples: list[Sample] = []
        self.began: list[LoadSnapshot] = []
        """What each process told first in the measured part."""
        self.first_usage: Usage | None = None
        self._vitals = vitals
        self._on_sample = on_sample
        self._began_ns = began_ns
        self._before: list[LoadSnapshot] = []
        self._usage: Usage | None = None
        self._share: float | None = None

    def take(self, told: Sequence[LoadSnapshot | None]) -> None:
        """Look at what the processes told last."""
        snapshots = [snapshot for snapshot in told if snapshot is not None]
        if len(snapshots) < len(told):
            return
        pairs = list(zip(snapshots, self._before, strict=False))
        if not self.began and any(snapshot.is_measuring for snapshot in snapshots):
            # The counts begin anew: what came since the last sample is in none.
            self._before = snapshots
            if all(snapshot.is_measuring for snapshot in snapshots):
                self.began, self.first_usage = snapshots, self._vitals.usage
        elif not pairs:
            self._before, self._usage = snapshots, self._vitals.usage
        elif all(now.at_ns - before.at_ns >= _LEAST_NS for now, before in pairs):
            self._before = snapshots
            self._tell(pairs)

    def _tell(self, pairs: list[tuple[LoadSnapshot, LoadSnapshot]]) -> None:
        snapshots = [now for now, _ in pairs]
        histogram, operations = LatencyHistogram(), 0
        for now, before in pairs:
            operations += now.operations - before.operations
            histogram.merge(now.histogram.since(before.histogram))
        seconds = sum(now.at_ns - before.at_ns for now, before in pairs) / len(pairs) / 1e9
        usage = self._server_usage()
        sample = Sample(
            at_s=(sum(now.at_ns for now in snapshots) / len(snapshots) - self._began_ns) / 1e9,
            phase=self.phase,
            connections=sum(now.connections for now in snapshots),
            operations=operations,
            rate=operations / seconds,
            latency=histogram.percentiles(),
            errors=sum(sum(now.errors.values()) - sum(before.errors.values()) for now, before in pairs),
            load_cpu=busiest(pairs),
            server_cpu=self._share,
            server_memory_bytes=None if usage is None else usage.memory_bytes,
        )
        self.samples.append(sample)
        self._on_sample(sample)

    def _server_usage(self) -> Usage | None:
        """Return what the server uses, and note its share of a core since the last time that was known."""
        usage = self._vitals.usage
        if usage is None or (self._usage is not None and usage.at_ns == self._usage.at_ns):
            return usage
        self._share, self._usage = usage.share_since(self._usage), usage
        return usage


def busiest(pairs: Sequence[tuple[LoadSnapshot, LoadSnapshot]]) -> float:
    """Return the share of a core that the busiest process used between its two snapshots, the later given first."""
    shares = [
        (now.cpu_s - before.cpu_s) / (now.at_ns - before.at_ns) * 1e9
        for now, before in pairs
        if now.at_ns > before.at_ns
    ]
    return max(shares, default=0.0)


def merged(snapshots: Sequence[LoadSnapshot]) -> tuple[LatencyHistogram, dict[str, int]]:
    """Add up the latencies and the errors of all processes."""
    histogram, errors = LatencyHistogram(), Counter[str]()
    for snapshot in snapshots:
        histogram.merge(snapshot.histogram)
        errors.update(snapshot.errors)
    return histogram, dict(errors.most_common())
