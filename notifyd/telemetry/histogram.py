"""How values are spread: counted in buckets, as Prometheus does, and quantiles of what came in the last seconds.

No clock in here: time is an argument.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

RECENT_S = 5.0
"""Quantiles are told of so many seconds, in seconds: long enough to have some values, short enough to be live."""

MARK_S = 0.5
"""The least time between two marks: more of them would tell no more."""


class Histogram:
    """Values in buckets: `counts[i]` are those above `bounds[i - 1]` up to `bounds[i]`, the last those above all."""

    __slots__ = ("_marks", "bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self._marks: deque[tuple[float, list[int]]] = deque([(float("-inf"), list(self.counts))])

    def observe(self, value: float, times: int = 1) -> None:
        """Take a value, `times` over."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def recent_quantiles(self, shares: Sequence[float], now_s: float) -> list[float | None]:
        """Tell below which value each share of what came in the last seconds was; None where nothing came.

        `RECENT_S` seconds where this is asked as often, else what came since it was asked before.
        """
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= now_s - RECENT_S:
            marks.popleft()
        recent = [count - before for count, before in zip(self.counts, marks[0][1], strict=True)]
        if now_s - marks[-1][0] >= MARK_S:
            marks.append((now_s, list(self.counts)))
        return [quantile(self.bounds, recent, share) for share in shares]


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate the value below which `share` (0 to 1) of all is, evenly spread within a bucket; None without values.

    What is above all bounds counts as the highest bound, as in Prometheus' `histogram_quantile`.
    """
    rank = share * sum(counts)
    if not sum(counts):
        return None
    lower, below = 0.0, 0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - below) / count
        below += count
        lower = bound
    return lower
