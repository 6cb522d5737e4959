"""The plots of a report, or of one before and one after tuning in the same picture, as SVG."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import isfinite, log10
from typing import NamedTuple

from notifyd.bench.plot import Axis, Line, draw_plot
from notifyd.bench.report import LoadReport, Percentiles, Sample
from notifyd.bench.text import bin_latencies

WIDTH, HEIGHT = 440, 280
"""Small enough to be read on a phone, where a plot is as wide as the screen."""

MOST_POINTS = 300
"""Of a line over time: intervals beyond them are gathered."""

_BINS = 60
_NINES = 7
"""Decades that the percentiles' axis has ticks for: up to 99.99999."""

_SECONDS = Axis("seconds since the load began")
_MS = Axis("ms", is_log=True)

Points = list[tuple[float, float | None]]


class Plotted(NamedTuple):
    """A report as it is told apart in the plots: by name, by colour where it has one line, else by its dashes."""

    name: str
    report: LoadReport
    colour: int = 0
    dashed: bool = False


def draw_plots(shown: Sequence[Plotted]) -> list[str]:
    """Draw everything worth a plot of one or two reports."""
    percentiles = ("p50", "p90", "p99", "p999") if len(shown) == 1 else ("p50", "p99")
    unit = shown[0].report.unit
    cpu = {"server": _server_cpu, "busiest load process": _load_cpu}
    latencies = _lines(shown, {key.replace("p999", "p99.9"): _latency_of(key) for key in percentiles}, max)
    plots = [
        draw_over_time("Rate", Axis(f"{unit} a second"), _lines(shown, {"": lambda sample: sample.rate})),
        draw_over_time("Latency", _MS, latencies),
        _draw_small("Distribution of latency", _draw_shares(shown), _MS, Axis(f"% of the {unit}")),
        _draw_small("Latency by percentile", _draw_curves(shown), _percentile_axis(), _MS),
        draw_over_time("Connections", Axis("connections"), _lines(shown, {"": lambda sample: sample.connections})),
        draw_over_time("CPU", Axis("% of a core"), _lines(shown, cpu)),
        draw_over_time("Memory of the server", Axis("MB"), _lines(shown, {"": _memory_mb})),
    ]
    if any(one.report.errors for one in shown):
        plots.append(draw_over_time("Errors", Axis("errors an interval"), _lines(shown, {"": _errors}, sum)))
    return plots


def draw_over_time(title: str, y: Axis, series: Sequence[Line]) -> str:
    """Draw lines over the seconds of a load."""
    return _draw_small(title, series, _SECONDS, y)


def percentile_curve(histogram: Sequence[tuple[float, int]]) -> Points:
    """Return latencies by nines: 1 is the 90th percentile, 2 the 99th, with as many nines as there are operations."""
    known = [(bound, count) for bound, count in histogram if isfinite(bound) and count > 0]
    total = sum(count for _, count in known)
    below = accumulate((count for _, count in known), initial=0)
    nines = [log10(total / (total - reached)) for reached, _ in zip(below, known, strict=False)]
    return [(at, bound) for at, (bound, _) in zip(nines, known, strict=True)]


def _draw_small(title: str, series: Sequence[Line], x: Axis, y: Axis) -> str:
    return draw_plot(title, series, x, y, width=WIDTH, height=HEIGHT)


def _lines(
    shown: Sequence[Plotted],
    reads: Mapping[str, Callable[[Sample], float | None]],
    gather: Callable[[list[float]], float] | None = None,
) -> list[Line]:
    """Return a line for each report and each of what is read from its intervals."""
    return [
        Line(
            ", ".join(filter(None, (name, one.name))),
            _gathered([(sample.at_s, read(sample)) for sample in one.report.samples], gather or _mean),
            colour=one.colour if len(reads) == 1 else place,
            dashed=one.dashed,
        )
        for place, (name, read) in enumerate(reads.items())
        for one in shown
    ]


def _gathered(points: Points, gather: Callable[[list[float]], float]) -> Points:
    """Return at most MOST_POINTS points, each of several neighbours where there are more."""
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    known = [(group[-1][0], [value for _, value in group if value is not None]) for group in groups]
    return [(at, gather(values) if values else None) for at, values in known]


def _draw_shares(shown: Sequence[Plotted]) -> list[Line]:
    """Return each histogram as steps: the share of the operations in each bin."""
    series = []
    for one in shown:
        bins = bin_latencies(one.report.histogram, _BINS)
        total = sum(count for _, count in bins)
        points: Points = [(end, 100 * count / total) for end, count in bins]
        if bins:
            ratio = bins[1][0] / bins[0][0] if len(bins) > 1 else 1.25
            points = [(bins[0][0] / ratio, 0.0), *points, (bins[-1][0], 0.0)]
        series.append(Line(one.name, points, colour=one.colour, dashed=one.dashed, stepped=True))
    return series


def _draw_curves(shown: Sequence[Plotted]) -> list[Line]:
    return [
        Line(one.name, percentile_curve(one.report.histogram), colour=one.colour, dashed=one.dashed) for one in shown
    ]


def _percentile_axis() -> Axis:
    nines = [(float(number), f"{100 - 100 * 0.1**number:.9g}") for number in range(_NINES + 1)]
    return Axis("percentile", ticks=[*nines, (-log10(0.5), "50")])


def _latency_of(key: str) -> Callable[[Sample], float | None]:
    def read(sample: Sample) -> float | None:
        latency: Percentiles | None = sample.latency
        return None if latency is None else float(getattr(latency, key))

    return read


def _server_cpu(sample: Sample) -> float | None:
    return None if sample.server_cpu is None else sample.server_cpu * 100


def _load_cpu(sample: Sample) -> float:
    return sample.load_cpu * 100


def _errors(sample: Sample) -> float:
    return sample.errors


def _memory_mb(sample: Sample) -> float | None:
    return None if sample.server_memory_bytes is None else sample.server_memory_bytes / 1e6


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
