"""How late the event loop runs: how long one round of the scheduler takes, for whoever becomes ready meanwhile.

Measured by Trio's own instrument, so that no stall is missed between two samples and an idle node has nothing to do.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from notifyd.events import Events

INTERVAL_S = 1.0
"""The longest round is told of intervals of so many seconds."""

WORST_INTERVALS = 15
"""As many of them are kept: the usual time between two scrapes, so that no stall is missed."""


class LoopLag(trio.abc.Instrument):
    """Observes each round. `now_s` is a real clock also where Trio's is virtual: work takes real time."""

    def __init__(self, events: Events, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._events = events
        self._now_s = now_s
        self._began_s = self._interval_s = now_s()
        self._longest_s = 0.0
        self._worst_s = [0.0] * WORST_INTERVALS

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        """Note that a round begins: whoever can go on by now does so in it."""
        self._began_s = self._now_s()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        """Note that it has ended."""
        now_s = self._now_s()
        took_s = now_s - self._began_s
        self._events.observe("loop_lag_seconds", took_s)
        if now_s - self._interval_s >= INTERVAL_S:
            self._turn(now_s)
        self._longest_s = max(self._longest_s, took_s)

    def _turn(self, now_s: float) -> None:
        """Begin another interval; those in which nothing ran had no long round."""
        passed = int((now_s - self._interval_s) / INTERVAL_S)
        finished = [self._longest_s, *([0.0] * min(passed - 1, WORST_INTERVALS))]
        self._worst_s = (self._worst_s + finished)[-WORST_INTERVALS:]
        self._interval_s += passed * INTERVAL_S
        self._longest_s = 0.0

    @property
    def recent_s(self) -> float:
        """The longest round of the present interval and of the one before, in seconds."""
        self._catch_up()
        return max(self._longest_s, self._worst_s[-1])

    @property
    def worst_s(self) -> float:
        """The longest round of the last `WORST_INTERVALS` seconds and of the present one, in seconds."""
        self._catch_up()
        return max(self._longest_s, *self._worst_s)

    def _catch_up(self) -> None:
        now_s = self._now_s()
        if now_s - self._interval_s >= INTERVAL_S:
            self._turn(now_s)


@asynccontextmanager
async def open_loop_lag(events: Events) -> AsyncIterator[LoopLag]:
    """Observe the event loop that runs this, for the length of the block."""
    lag = LoopLag(events)
    trio.lowlevel.add_instrument(lag)
    try:
        yield lag
    finally:
        trio.lowlevel.remove_instrument(lag)
