"""What a load found, for a terminal: tables, the distribution of latencies and the rate over time. Needs no colours."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from math import isfinite

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from notifyd.bench.figures import describe_rate, describe_ratio, figures_of
from notifyd.bench.report import Comparison, LoadReport
from notifyd.bench.scale import log_bins
from notifyd.bench.tuning import tuning_of
from notifyd.text import printable

MOST_BINS = 16
"""Lines of the distribution."""

RATE_LINES = 6

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHORTEST_BAR = 1 / 160
"""Of the longest one: what happened once is still seen."""

_MARKS = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


def draw_report(report: LoadReport) -> RenderableType:
    """Draw all that a report says."""
    table = _table("", "")
    for figure in figures_of(report):
        _add_row(table, figure.name, figure.text)
    plots = (_Distribution("latency", report), _RateOverTime("rate", report))
    return _spaced(_head(report), table, _draw_saturation("", report), *_draw_errors(report), *plots)


def draw_comparison(comparison: Comparison) -> RenderableType:
    """Draw both reports beside each other, then the plots of one and of the other."""
    before, after = comparison.before, comparison.after
    both = (("before", before), ("after", after))
    tuned = Group(*(Text(line, overflow="fold") for line in describe_tuning(comparison)))
    table = _table("", "before", "after", "ratio")
    for old, new in zip(figures_of(before), figures_of(after), strict=True):
        _add_row(table, old.name, old.text, new.text, describe_ratio(new.ratio_to(old)))
    saturated = [_draw_saturation(f"{when}: ", report) for when, report in both]
    distributions = [_Distribution(f"latency, {when}", report) for when, report in both]
    rates = [_RateOverTime(f"rate, {when}", report) for when, report in both]
    return _spaced(_head(after), tuned, table, *saturated, *_draw_errors(before, after), *distributions, *rates)


def describe_saturation(report: LoadReport) -> str:
    """Say in a sentence whose limit the figures show."""
    if report.saturated is None:
        return "The load generator was not saturated: it did not set these figures."
    return f"SATURATED: {printable(report.saturated)}. The server may be faster than these figures."


def describe_tuning(comparison: Comparison) -> list[str]:
    """Say what was set, from what to what, why it helps and what it costs."""
    lines = []
    for key, value in comparison.tuning.items():
        lines.append(f"tuned: {printable(key)} = {printable(value)}")
        if (known := tuning_of(key)) is not None:
            lines += [f"  instead of {known.default}", f"  why: {known.why}", f"  costs: {known.costs}"]
    return lines


def describe_start(report: LoadReport) -> str:
    """Say when a load began, in UTC."""
    try:
        return f"{datetime.fromtimestamp(report.started_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{report.started_ms} ms"


def bin_latencies(histogram: Sequence[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """Gather a histogram into round bins of equal width on a logarithmic axis: (upper end in milliseconds, count)."""
    known = [(bound, count) for bound, count in histogram if isfinite(bound) and count > 0]
    if not known:
        return []
    ends = log_bins([bound for bound, _ in known], most)
    counts = [0] * len(ends)
    for bound, count in known:
        counts[min(len(ends) - 1, bisect_left(ends, bound * 0.999999))] += count
    return list(zip(ends, counts, strict=True))


def draw_columns(values: Sequence[float], width: int, lines: int) -> list[str]:
    """Draw values as columns of block characters, the highest in full height: so many lines, each at most so wide.

    More values than columns are averaged, fewer made wider.
    """
    columns = [0.0] * min(width, len(values) * max(1, width // max(1, len(values))))
    for place in range(len(columns)):
        begin = place * len(values) // len(columns)
        end = max(begin + 1, (place + 1) * len(values) // len(columns))
        columns[place] = sum(values[begin:end]) / (end - begin)
    most = max(columns, default=0.0)
    eighths = [round(value / most * lines * 8) if most > 0 and value > 0 else 0 for value in columns]
    return [
        "".join(_BLOCKS[min(8, max(0, height - below * 8))] for height in eighths) for below in reversed(range(lines))
    ]


class _Distribution:
    """The histogram of latencies, one bar a bin, with the percentiles where they fall."""

    def __init__(self, title: str, report: LoadReport) -> None:
        self._title, self._report = title, report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as there is room."""
        bins = bin_latencies(self._report.histogram, MOST_BINS)
        yield Text(f"{self._title}: share of the {printable(self._report.unit)} that took up to so many ms")
        if not bins:
            yield Text("  nothing was measured")
            return
        total, most = sum(count for _, count in bins), max(count for _, count in bins)
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        marks = _marks_of(bins, total)
        for place, (end, count) in enumerate(bins):
            length = max(count, most * _SHORTEST_BAR) if count else 0
            table.add_row(
                f"  {end:,.6g}",
                Bar(most, 0, length),
                _percent(count / total) if count else "",
                marks.get(place, ""),
            )
        yield table


class _RateOverTime:
    """The rate of every interval, as columns."""

    def __init__(self, title: str, report: LoadReport) -> None:
        self._title, self._report = title, report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as there is room."""
        samples = self._report.samples
        yield Text(f"{self._title}: {printable(self._report.unit)} a second, over time")
        if not samples:
            yield Text("  nothing was measured")
            return
        label = describe_rate(max(sample.rate for sample in samples))
        room = max(1, options.max_width - len(label) - 4)
        rows = draw_columns([sample.rate for sample in samples], room, RATE_LINES)
        for place, row in enumerate(rows):
            yield Text(f"  {label if not place else '':>{len(label)}} {row.rstrip()}", no_wrap=True, overflow="crop")
        begin, end = f"{'0':>{len(label) + 2}} 0 s", f"{samples[-1].at_s:.1f} s"
        last = len(label) + 3 + len(rows[0])
        yield Text(begin + end.rjust(max(len(end) + 1, last - len(begin))), no_wrap=True, overflow="crop")


def _marks_of(bins: Sequence[tuple[float, int]], total: int) -> dict[int, str]:
    """Return which percentiles fall into which bin."""
    reached = list(accumulate(count for _, count in bins))
    marks: dict[int, list[str]] = {}
    for name, share in _MARKS:
        marks.setdefault(min(len(bins) - 1, bisect_left(reached, share * total)), []).append(name)
    return {place: " ".join(names) for place, names in marks.items()}


def _head(report: LoadReport) -> RenderableType:
    options = ", ".join(f"{printable(name)} {printable(str(value))}" for name, value in report.options.items())
    processes = f"{report.processes} load process{'es'[: 2 * (report.processes != 1)]}"
    lines = [
        f"notifyd bench {printable(report.scenario)}",
        f"{printable(report.url)}, {printable(report.encoding)}, {processes}, {describe_start(report)}",
        options,
        "  ".join(f"{printable(name)} {seconds:.2f} s" for name, seconds in report.phases.items()),
    ]
    return Group(*(Text(line, overflow="fold") for line in lines if line))


def _draw_saturation(when: str, report: LoadReport) -> Text:
    return Text(when + describe_saturation(report), style="bold" if report.saturated else "")


def _draw_errors(*reports: LoadReport) -> list[RenderableType]:
    """Return a table of the errors, each kind with its number in each report; nothing where there were none."""
    kinds = sorted({kind for report in reports for kind in report.errors})
    table = _table("errors", *(("before", "after") if len(reports) > 1 else ("",)))
    for kind in kinds:
        _add_row(table, kind, *(f"{report.errors.get(kind, 0):,}" for report in reports))
    return [table] if kinds else []


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))


def _table(*columns: str) -> Table:
    has_heads = any(columns)
    table = Table(box=SIMPLE_HEAD if has_heads else None, show_header=has_heads, show_edge=False, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    return table


def _percent(share: float) -> str:
    return f"{share * 100:.{1 if share >= 0.001 else 3}f} %"


def _spaced(*parts: RenderableType) -> Group:
    def lines() -> Iterator[RenderableType]:
        for place, part in enumerate(parts):
            if place:
                yield Text("")
            yield part

    return Group(*lines())
