"""The `Events` of a running node: metrics and log behind one small object."""

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

import trio

from notifyd.clock import Clock
from notifyd.settings import LogFormat
from notifyd.telemetry.log import LEVELS, Log
from notifyd.telemetry.metrics import Metrics, Shown
from notifyd.telemetry.repeats import Repeats
from notifyd.telemetry.snapshot import Snapshot
from notifyd.tracing import CURRENT_TRACE
from protocol.trace import trace_id_of

_CLOCK = Clock(monotonic_s=time.monotonic)
"""Not Trio's: there are lines to write before it runs and after."""

_LIMITED_LEVELS = frozenset({"warning", "error"})
_KIND_FIELDS = ("service", "place", "kind", "listener", "reason")
"""Fields from fixed sets that tell two lines of the same event apart."""


class Telemetry:
    """Counts, gauges and log lines of one node.

    `level` is the least level written to `stream` (standard error by default); `form` is "text" for a person, "json",
    or "auto": text where the stream is a terminal. Repeats of a warning or error, and of any line about a connection,
    are left out after the first few in a minute; the next one that is written carries how many, in `left_out`.
    """

    def __init__(
        self,
        level: str = "info",
        *,
        form: LogFormat = "auto",
        stream: TextIO | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        self._clock = clock
        self._log = Log(level, form, stream or sys.stderr, unix_s=self._clock.unix_s)
        self._metrics = Metrics()
        self._repeats = Repeats()
        self.show("workers", lambda: {("answering",): 1})

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter. One that the catalogue does not declare with these labels is a bug, and logged."""
        if not self._metrics.count(name, amount, labels):
            self.log("error", "unknown_metric", name=name, labels=list(labels))

    def observe(self, name: str, value: float, times: int = 1, **labels: str) -> None:
        """Put a value into a histogram, `times` over. One that the catalogue does not declare is a bug, and logged."""
        if not self._metrics.observe(name, value, times, labels):
            self.log("error", "unknown_metric", name=name, labels=list(labels))

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one structured line; `level` is debug, info, warning or error, and anything else is an error."""
        level = level if level in LEVELS else "error"
        if not self._log.writes(level):
            return
        trace = CURRENT_TRACE.get() if level in _LIMITED_LEVELS else None
        if trace is not None:
            fields["trace_id"] = trace_id_of(trace)
        if level in _LIMITED_LEVELS or (level == "info" and "connection" in fields):
            kind = (event, *(str(fields[field]) for field in _KIND_FIELDS if field in fields))
            left_out = self._repeats.admit(kind, self._clock.monotonic_s())
            if left_out is None:
                self.count("log_lines_left_out")
                return
            if left_out:
                fields["left_out"] = left_out
        self._log.write(level, event, fields)
        self.count("log_lines", level=level)

    def set_level(self, level: str) -> None:
        """Write lines of at least this level from now on."""
        self._log.set_level(level)

    def set_format(self, form: LogFormat) -> None:
        """Write lines in this form from now on."""
        self._log.set_format(form)

    def show(self, name: str, value: Shown) -> None:
        """Ask `value` for a gauge, or for a counter that somebody else counts, whenever it is read.

        It returns a number, or with labels a mapping of their values to numbers; series left out are 0. Raises KeyError
        for a metric that is not declared.
        """
        self._metrics.show(name, value)

    def total(self, name: str, **labels: str) -> float:
        """Return a counter's or a gauge's value: the sum over its series with (at least) these labels.

        Of this process alone, as is all that is read here. Raises KeyError for a metric or label that is not declared.
        """
        return self._metrics.total(name, labels)

    def quantiles(self, name: str, shares: Sequence[float]) -> list[float | None]:
        """Tell the quantiles, such as 0.5 and 0.99, of what a histogram got in the last seconds; None without values.

        Those of the last 5 s where this is asked every second, else of the time since it was asked before. Raises
        KeyError for a histogram that is not declared.
        """
        return self._metrics.quantiles(name, shares, self._clock.monotonic_s())

    def snapshot(self) -> Snapshot:
        """Take down all numbers of this process as they are now."""
        return self._metrics.snapshot()

    def exposition(self) -> bytes:
        """Write the metrics of this process in Prometheus' text format, version 0.0.4."""
        from notifyd.telemetry.exposition import write_exposition  # noqa: PLC0415 - not every node is asked

        return write_exposition(self.snapshot())

    async def scrape(self) -> bytes:
        """Write the metrics of the node: of all of its workers, where there are several."""
        await trio.lowlevel.checkpoint()
        return self.exposition()
