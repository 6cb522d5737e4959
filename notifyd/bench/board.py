"""What is shown while a load runs: a board in a terminal, a plain line a second anywhere else. Always on stderr."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from notifyd.bench.figures import PERCENTILES, describe_ms, describe_rate, describe_share, three_figures
from notifyd.bench.load import Load
from notifyd.bench.report import Sample
from notifyd.bench.saturation import BUSY
from notifyd.text import curve_of, describe_bytes, printable

PROGRESS_S = 1.0
CURVE = 40
"""Intervals that the curve of the rate shows."""

_WARNING = " SATURATED: the load generator is the bottleneck; give it more --processes "
_LOUD = "bold white on red"


@contextmanager
def showing_progress(load: Load, console: Console, title: str = "") -> Iterator[Callable[[Sample], None]]:
    """Yield what takes each interval and shows it; in a terminal the last picture stays. A title tells runs apart."""
    if not console.is_terminal:
        yield LinePrinter(load, console, title).take
        return
    board = LoadBoard(load, title)
    with Live(board.draw(), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:

        def show(sample: Sample) -> None:
            board.take(sample)
            live.update(board.draw(), refresh=True)

        yield show


class LinePrinter:
    """Prints a line a second, and one where a phase begins."""

    def __init__(self, load: Load, console: Console, title: str) -> None:
        self._load, self._console, self._title = load, console, title
        self._told: tuple[str, float] | None = None
        self._errors = 0

    def take(self, sample: Sample) -> None:
        """Print an interval where it is time for a line."""
        self._errors += sample.errors
        if self._told is None or sample.phase != self._told[0] or sample.at_s - self._told[1] >= PROGRESS_S * 0.99:
            self._told = (sample.phase, sample.at_s)
            line = "  ".join([*filter(None, [self._title]), describe_sample(self._load, sample, self._errors)])
            self._console.print(Text(line), soft_wrap=True)


class LoadBoard:
    """A load that runs: what it is, how it goes now, and how the rate was over the last intervals."""

    def __init__(self, load: Load, title: str = "") -> None:
        self._load, self._title = load, title
        self._rates: deque[float] = deque(maxlen=CURVE)
        self._sample: Sample | None = None
        self._operations = self._errors = 0

    def take(self, sample: Sample) -> None:
        """Note an interval."""
        self._sample = sample
        self._rates.append(sample.rate)
        self._operations += sample.operations
        self._errors += sample.errors

    def draw(self) -> RenderableType:
        """Draw the board, as it is now."""
        sample = self._sample
        if sample is None:
            return Group(self._head(""), Text("starting", "dim"))
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(no_wrap=True, min_width=len("connections"))
        rows.add_column(overflow="ellipsis", no_wrap=True)
        curve = curve_of(self._rates, CURVE)
        rows.add_row("connections", f"{sample.connections:,}")
        rows.add_row(self._load.nature.unit, f"{self._operations:,}")
        rows.add_row("rate", Text.assemble(f"{describe_rate(sample.rate) + '/s':<12}", (curve, "cyan")))
        rows.add_row("latency, ms", _describe_latency(sample))
        rows.add_row("errors", Text(f"{self._errors:,}", "bold red" if self._errors else ""))
        rows.add_row("load CPU", describe_share(sample.load_cpu))
        rows.add_row("server", _describe_server(sample) or "-")
        warning = [Text(_WARNING, _LOUD, no_wrap=True, overflow="ellipsis")] if is_saturated(sample) else []
        return Group(self._head(f"{printable(sample.phase)}, {sample.at_s:.1f} s"), rows, *warning)

    def _head(self, moment: str) -> Text:
        load = self._load
        where = load.url or f"a node of its own, over {load.transport}"
        what = (f"notifyd bench {load.scenario}", "bold")
        rest = [part for part in (self._title, where, load.encoding, moment) if part]
        return Text.assemble(what, *(f"   {printable(part)}" for part in rest), no_wrap=True, overflow="ellipsis")


def describe_sample(load: Load, sample: Sample, errors: int) -> str:
    """Say an interval, and how many errors were met so far, in one line without a colour or a bar."""
    parts = [
        f"{sample.at_s:6.1f} s  {printable(sample.phase)}",
        f"{sample.connections:,} connections",
        f"{describe_rate(sample.rate)} {load.nature.unit}/s",
    ]
    if sample.latency is not None:
        parts.append(f"p50 {describe_ms(sample.latency.p50)}, p99 {describe_ms(sample.latency.p99)}")
    parts.append(f"{errors:,} errors")
    parts.append(f"load CPU {describe_share(sample.load_cpu)}{' SATURATED' if is_saturated(sample) else ''}")
    if server := _describe_server(sample):
        parts.append(f"server {server}")
    return "  ".join(parts)


def is_saturated(sample: Sample) -> bool:
    """Say whether the load generator had all it could do."""
    return sample.load_cpu > BUSY


def _describe_latency(sample: Sample) -> str:
    if sample.latency is None:
        return "-"
    return "  ".join(f"{name} {three_figures(getattr(sample.latency, key))}" for name, key in PERCENTILES)


def _describe_server(sample: Sample) -> str:
    cpu = None if sample.server_cpu is None else f"CPU {describe_share(sample.server_cpu)}"
    memory = None if sample.server_memory_bytes is None else describe_bytes(sample.server_memory_bytes)
    return ", ".join(part for part in (cpu, memory) if part)
