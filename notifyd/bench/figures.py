"""What a report comes to, figure by figure: the same in the terminal and in the page, before and after tuning."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from notifyd.bench.report import LoadReport, Percentiles
from notifyd.text import describe_bytes, describe_number

PERCENTILES = (("mean", "mean"), ("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max"))
"""How each is written, and its name in Percentiles."""

NONE = "-"


class Figure(NamedTuple):
    """One figure: what it is of, its value, and the value as people read it; None and `-` where it is not known."""

    name: str
    value: float | None
    text: str

    def ratio_to(self, before: "Figure") -> float | None:
        """Return how many times as much as before it is; None where that says nothing."""
        return None if self.value is None or not before.value else self.value / before.value


def figures_of(report: LoadReport) -> list[Figure]:
    """Return the figures of a report, in the order in which they are shown; a report always has the same ones."""
    return [
        _figure("connections", report.connections, _count),
        _figure(report.unit, report.operations, _count),
        _figure("seconds measured", report.seconds, lambda seconds: f"{seconds:.2f}"),
        _figure("rate", report.rate, lambda rate: f"{describe_rate(rate)}/s"),
        *(_figure(f"latency {name}", _percentile(report.latency, key), describe_ms) for name, key in PERCENTILES),
        _figure("errors", sum(report.errors.values()), _count),
        *_cost_figures(report),
    ]


def _cost_figures(report: LoadReport) -> Iterator[Figure]:
    """Yield what the load cost the server: as a whole, and for each connection and operation."""
    cpu, memory = report.server_cpu, report.server_memory_bytes
    busy_s = None if cpu is None else cpu * report.seconds
    one = report.unit.removesuffix("ies") + "y" if report.unit.endswith("ies") else report.unit.removesuffix("s")
    yield _figure("server CPU, of a core", cpu, describe_share)
    yield _figure(f"server CPU per {one}", _divided(busy_s, report.operations), describe_seconds)
    yield _figure(
        "server CPU per connection", _divided(cpu, report.connections), lambda share: f"{describe_seconds(share)}/s"
    )
    yield _figure("server memory", memory, describe_bytes)
    yield _figure("memory per connection", report.connection_memory_bytes, describe_bytes)


def describe_ms(duration_ms: float) -> str:
    """Say milliseconds in about three figures, such as `0.043 ms`, `4.21 ms` or `1,250 ms`."""
    return f"{three_figures(duration_ms)} ms"


def describe_seconds(duration_s: float) -> str:
    """Say a short time in the unit that suits it, such as `2.10 µs` or `3.40 ms`."""
    size, unit = next(((size, unit) for size, unit in ((1.0, "s"), (1e-3, "ms")) if duration_s >= size), (1e-6, "µs"))
    return f"{three_figures(duration_s / size)} {unit}"


def describe_rate(rate: float) -> str:
    """Say a rate such as `0.5` or `98,234`."""
    return f"{rate:,.0f}" if rate >= 100 else describe_number(max(0.0, rate))


def describe_share(share: float) -> str:
    """Say a share of a core, such as `4.1 %`."""
    return f"{share * 100:.{0 if share >= 0.0995 else 1}f} %"


def describe_ratio(ratio: float | None) -> str:
    """Say a ratio, such as `x 1.42`; nothing where there is none."""
    return "" if ratio is None else f"x {three_figures(ratio)}"


def three_figures(number: float) -> str:
    """Write a number of at least 0 in about three figures, without a unit."""
    if not number:
        return "0"
    places = next((places for least, places in ((100, 0), (10, 1), (1, 2), (0.1, 2)) if number >= least * 0.9995), 3)
    return f"{number:,.{places}f}"


def _figure(name: str, value: float | None, describe: Callable[[float], str]) -> Figure:
    return Figure(name, value, NONE if value is None else describe(value))


def _percentile(latency: Percentiles | None, key: str) -> float | None:
    return None if latency is None else float(getattr(latency, key))


def _divided(amount: float | None, count: float) -> float | None:
    return None if amount is None or count <= 0 else amount / count


def _count(number: float) -> str:
    return f"{number:,.0f}"
