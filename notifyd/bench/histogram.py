"""Latencies in buckets of equal relative width, which can be added up over processes and subtracted over time.

Each power of two is cut into 64 buckets: none is wider than 1.6 % of what it holds, from nanoseconds to hours.
"""

import math

import msgspec

from notifyd.bench.report import Percentiles

_SUB_BITS = 6
_SUB_BUCKETS = 1 << _SUB_BITS
_NS_PER_MS = 1e6


class LatencyHistogram(msgspec.Struct):
    """How often each latency was met: `counts` by bucket, the sum and the highest in nanoseconds."""

    counts: dict[int, int] = msgspec.field(default_factory=dict)
    total: int = 0
    sum_ns: int = 0
    max_ns: int = 0

    def add(self, value_ns: int, weight: int = 1) -> None:
        """Count a latency (below zero counts as zero); `weight` is how many it stands for."""
        value_ns = max(value_ns, 0)
        bucket = bucket_of(value_ns)
        self.counts[bucket] = self.counts.get(bucket, 0) + weight
        self.total += weight
        self.sum_ns += value_ns * weight
        self.max_ns = max(self.max_ns, value_ns)

    def merge(self, other: "LatencyHistogram") -> None:
        """Add what another one counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def since(self, earlier: "LatencyHistogram") -> "LatencyHistogram":
        """Return what came after `earlier`, an older state of this one; its highest is as good as its bucket."""
        counts = {
            bucket: more for bucket, count in self.counts.items() if (more := count - earlier.counts.get(bucket, 0)) > 0
        }
        highest_ns = min(self.max_ns, top_of(max(counts))) if counts else 0
        return LatencyHistogram(counts, self.total - earlier.total, self.sum_ns - earlier.sum_ns, highest_ns)

    def percentiles(self) -> Percentiles | None:
        """Return them in milliseconds, each the top of the bucket that its rank is in; None of nothing."""
        if not self.total:
            return None
        ranks = [max(1, math.ceil(self.total * share)) for share in (0.5, 0.9, 0.99, 0.999)]
        values = []
        passed, buckets = 0, iter(sorted(self.counts.items()))
        bucket = 0
        for rank in ranks:
            while passed < rank:
                bucket, count = next(buckets)
                passed += count
            values.append(min(top_of(bucket), self.max_ns) / _NS_PER_MS)
        p50, p90, p99, p999 = values
        return Percentiles(self.sum_ns / self.total / _NS_PER_MS, p50, p90, p99, p999, self.max_ns / _NS_PER_MS)

    def buckets(self) -> list[tuple[float, int]]:
        """Return what is in each bucket: its top in milliseconds, and how many."""
        return [(top_of(bucket) / _NS_PER_MS, count) for bucket, count in sorted(self.counts.items())]


def bucket_of(value_ns: int) -> int:
    """Return the number of the bucket that a value is in."""
    shift = value_ns.bit_length() - _SUB_BITS - 1
    return value_ns if shift <= 0 else (shift << _SUB_BITS) + (value_ns >> shift)


def top_of(bucket: int) -> int:
    """Return the highest value that is in this bucket."""
    shift = (bucket >> _SUB_BITS) - 1
    return bucket if shift <= 0 else (((bucket & (_SUB_BUCKETS - 1)) + _SUB_BUCKETS + 1) << shift) - 1
