"""From numbers to places on an axis, linear or logarithmic, and the ticks that a reader expects on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10

_LEAST, _MOST = 1e-12, 1e15
"""What a logarithmic axis can show; a value beyond stands at its end."""

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, drawn from `begin` to `end`; `begin` may be the larger one, as on a screen's y."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands; what is beyond the axis stands at its end."""
        share = (self._measure(value) - self._measure(self.low)) / (self._measure(self.high) - self._measure(self.low))
        return self.begin + (self.end - self.begin) * min(1.0, max(0.0, share))

    def ticks(self, most: int) -> list[float]:
        """Return round values on the axis, at most so many."""
        return _log_ticks(self.low, self.high, most) if self.is_log else _linear_ticks(self.low, self.high, most)

    def widened(self, most: int) -> "Scale":
        """Return the scale with its ends on ticks, of which it has at most about so many."""
        if self.is_log:
            return self
        step = _step_for(self.high - self.low, most)
        return replace(self, low=floor(self.low / step + 1e-9) * step, high=ceil(self.high / step - 1e-9) * step)

    def _measure(self, value: float) -> float:
        return log10(max(value, _LEAST)) if self.is_log else value


def fit_scale(values: Iterable[float], begin: float, end: float, *, is_log: bool = False) -> Scale:
    """Return the scale that shows all values: from 0 where it is linear, from a round value where it is not."""
    shown = [value for value in values if is_shown(value, is_log=is_log)]
    if is_log:
        low, high = _round_down(min(shown, default=1.0)), _round_up(max(shown, default=10.0))
        return Scale(low, high if high > low else _round_up(low * 1.5), begin, end, is_log=True)
    low, high = min([0.0, *shown]), max([0.0, *shown])
    return Scale(low, high if high - low > _LEAST else low + 1.0, begin, end)


def is_shown(value: float | None, *, is_log: bool) -> bool:
    """Say whether an axis can show a value: a number, above 0 where the axis is logarithmic."""
    return value is not None and isfinite(value) and abs(value) <= _MOST and (value >= _LEAST or not is_log)


def tick_label(value: float) -> str:
    """Write a round value in few characters, such as `0.05`, `20` or `50k`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(value) >= size), (1, ""))
    return f"{value / size:.6g}{unit}"


def _step_for(span: float, most: int) -> float:
    """Return the least of 1, 2, 2.5, 5, 10 … that divides a span into less than `most` pieces."""
    decade = 10.0 ** floor(log10(span / max(1, most - 1)))
    return next(factor * decade for factor in (1, 2, 2.5, 5, 10, 20) if span / (factor * decade) <= max(1, most - 1))


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    step = _step_for(high - low, most)
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if 2 <= len(ticks) <= most:
            return ticks
    return ticks[:: ceil(len(ticks) / max(2, most))]


def _round_down(value: float) -> float:
    decade = 10.0 ** floor(log10(value) + 1e-9)
    return max(factor * decade for factor in (1, 2, 5) if factor * decade <= value * 1.001)


def _round_up(value: float) -> float:
    decade = 10.0 ** floor(log10(value) + 1e-9)
    return min(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= value * 0.999)


def log_bins(values: Sequence[float], most: int) -> list[float]:
    """Return the upper ends of the finest round bins, at most so many, that hold all of these values above 0.

    The first bin begins where one before it would end. What is below a millionth stands in the first.
    """
    low, high = max(1e-6, min(values)), max(1e-6, *values)
    for steps in ((1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8), (1, 1.6, 2.5, 4, 6.3), (1, 2, 5), (1,)):
        bins = _bins_between(low, high, steps)
        if len(bins) <= most:
            return bins
    return bins[-most:]


def _bins_between(low: float, high: float, steps: Sequence[float]) -> list[float]:
    decades = range(floor(log10(low)) - 1, ceil(log10(high)) + 2)
    ends = [step * 10.0**decade for decade in decades for step in steps]
    first = next(place for place, end in enumerate(ends) if end >= low * 0.999999)
    last = next(place for place, end in enumerate(ends) if end >= high * 0.999999)
    return ends[first : last + 1]
