"""The `Events` of a running node: metrics and log behind one small object."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from notifyd.clock import Clock
from notifyd.telemetry.log import Log
from notifyd.telemetry.metrics import Metrics
from notifyd.telemetry.repeats import Repeats
from notifyd.tracing import CURRENT_TRACE
from protocol.trace import trace_id_of

_CLOCK = Clock(monotonic_s=time.monotonic)
"""Not Trio's: there are lines to write before it runs and after."""

_LIMITED_LEVELS = frozenset({"warning", "error"})
_KIND_FIELDS = ("service", "place", "kind", "listener")
"""Fields from fixed sets that tell two lines of the same event apart."""


class Telemetry:
    """Counts, gauges and log lines of one node.

    `level` is the least level written to `stream` (standard error by default): for a person when it is a terminal, as
    JSON otherwise. Repeats of a warning or error are left out after the first few in a minute; the next line that is
    written carries how many, in the field `left_out`.
    """

    def __init__(self, level: str = "info", *, stream: TextIO | None = None, clock: Clock = _CLOCK) -> None:
        self._clock = clock
        self._log = Log(level, stream or sys.stderr, unix_s=self._clock.unix_s)
        self._metrics = Metrics()
        self._repeats = Repeats()

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter. One that `counters.py` does not declare with these labels is a bug, and logged."""
        if not self._metrics.count(name, amount, labels):
            self.log("error", "unknown_counter", name=name, labels=list(labels))

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one structured line; `level` is debug, info, warning or error."""
        if level in _LIMITED_LEVELS:
            trace = CURRENT_TRACE.get()
            if trace is not None:
                fields["trace_id"] = trace_id_of(trace)
            kind = (event, *(str(fields[field]) for field in _KIND_FIELDS if field in fields))
            left_out = self._repeats.admit(kind, self._clock.monotonic_s())
            if left_out is None:
                self._metrics.count("log_lines_left_out", 1, {})
                return
            if left_out:
                fields["left_out"] = left_out
        self._log.write(level, event, fields)

    def set_level(self, level: str) -> None:
        """Write lines of at least this level from now on."""
        self._log.set_level(level)

    def show(self, name: str, value: Callable[[], int]) -> None:
        """Show a gauge on `/metrics`, asked for its value each time. Raises KeyError for one that is not declared."""
        self._metrics.show(name, value)

    def exposition(self) -> bytes:
        """Write all metrics in Prometheus' text format, version 0.0.4."""
        return self._metrics.exposition()
