"""How late the event loop runs, and which task held it.

The lag is how long one round of the scheduler takes, for whoever becomes ready meanwhile. Measured by Trio's own
instrument, so that no stall is missed between two samples, the first one is explained like all others, and an idle node
has nothing to do. Of each step of a task only the end is looked at: 0.4 µs with what Trio takes to ask, where asking at
both ends is twice that.
"""

import gc
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from notifyd.connection.connection import Connection
from notifyd.events import Events
from notifyd.supervision import kind_of
from notifyd.telemetry.catalogue import OTHER, SERVICES, Series
from notifyd.telemetry.task_names import connection_of, place_of, service_of

INTERVAL_S = 1.0
"""The longest round is told of intervals of so many seconds."""

WORST_INTERVALS = 15
"""As many of them are kept: the usual time between two scrapes, so that no stall is missed."""

NAMED_S = 0.001
"""Of steps below this one none is looked at: a round that is late in spite of that has many of them."""

HELD_S = 0.05
"""A step of one task that takes longer is counted as a hold: heartbeats and messages of everybody else are late by what
a network takes to cross an ocean."""

TOLD_S = 0.25
"""A step, or a round, that takes longer is told in the log: people notice, and a machine that is merely busy seldom
keeps a process waiting for as long."""


class LoopLag(trio.abc.Instrument):
    """Observes each round, and the steps in it. `connections` are those that a task may serve.

    `now_s` is a real clock also where Trio's is virtual: work takes real time. `cpu_s` tells the thread's CPU time.
    Steps and rounds of `told_s` and more are written to the log.
    """

    __slots__ = (
        "_bar_s",
        "_began_s",
        "_connections",
        "_cpu_began_s",
        "_cpu_s",
        "_events",
        "_gc_began_s",
        "_gc_s",
        "_held_s",
        "_interval_s",
        "_is_told",
        "_longest_s",
        "_now_s",
        "_step_s",
        "_told_s",
        "_worst_s",
        "_worst_step",
    )

    def __init__(
        self,
        events: Events,
        connections: Iterable[Connection] = (),
        *,
        now_s: Callable[[], float] = time.perf_counter,
        cpu_s: Callable[[], float] = time.thread_time,
        told_s: float = TOLD_S,
    ) -> None:
        self._events = events
        self._connections = connections
        self._now_s = now_s
        self._cpu_s = cpu_s
        self._told_s = told_s
        self._interval_s = now_s()
        self._longest_s = 0.0
        self._worst_s = [0.0] * WORST_INTERVALS
        self._held_s = dict.fromkeys(SERVICES, 0.0)
        self._gc_began_s = 0.0
        self._forget_steps()
        self.after_io_wait(0)

    @contextmanager
    def hearing_of_garbage(self) -> Iterator[None]:
        """Take note of what the collection of garbage takes: it befalls any task, and is no fault of it."""
        gc.callbacks.append(self._on_garbage)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_garbage)

    def _on_garbage(self, phase: str, _details: object) -> None:
        if phase == "start":
            self._gc_began_s = self._now_s()
        else:
            self._gc_s += self._now_s() - self._gc_began_s

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        """Note that a round begins: whoever can go on by now does so in it."""
        self._began_s = self._step_s = self._now_s()
        self._begin_account()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note that a task has given the loop back: what passed since the step before this one was its own."""
        now_s = self._now_s()
        if now_s - self._step_s > self._bar_s:
            self._note(task, now_s - self._step_s)
        self._step_s = now_s

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        """Note that the round has ended."""
        now_s = self._now_s()
        took_s = now_s - self._began_s
        self._events.observe("loop_lag_seconds", took_s)
        if self._worst_step is not None or took_s >= self._told_s:
            if took_s >= self._told_s and not self._is_told:
                self._tell_late(took_s)
            self._forget_steps()
        if now_s - self._interval_s >= INTERVAL_S:
            self._turn(now_s)
        self._longest_s = max(self._longest_s, took_s)

    def _forget_steps(self) -> None:
        self._bar_s = NAMED_S
        self._worst_step: tuple[float, trio.lowlevel.Task] | None = None
        self._is_told = False

    def _note(self, task: trio.lowlevel.Task, took_s: float) -> None:
        """Take a step that was longer than those before it in this round, or long in itself."""
        self._bar_s = min(took_s, HELD_S)
        if self._worst_step is None or took_s > self._worst_step[0]:
            self._worst_step = took_s, task
        if took_s >= HELD_S:
            kind = kind_of(service_of(task))
            self._held_s[kind if kind in self._held_s else OTHER] += took_s
        if took_s >= self._told_s:
            self._is_told = True
            self._tell_held(task, took_s)

    def _tell_held(self, task: trio.lowlevel.Task, took_s: float) -> None:
        connection = connection_of(task, self._connections)
        about = {} if connection is None else {"connection": connection}
        self._events.log(
            "warning",
            "loop_held",
            service=service_of(task),
            task=task.name,
            at=place_of(task),
            held_s=round(took_s, 3),
            cpu_s=self._cpu_since_s(),
            gc_s=round(self._gc_s, 3),
            **about,
        )
        self._begin_account()  # what it was is not told of the next one in this round, too

    def _tell_late(self, took_s: float) -> None:
        held_s, task = self._worst_step or (0.0, None)
        self._events.log(
            "warning",
            "loop_late",
            lag_s=round(took_s, 3),
            cpu_s=self._cpu_since_s(),
            gc_s=round(self._gc_s, 3),
            service=OTHER if task is None else service_of(task),
            task=None if task is None else task.name,
            held_s=round(held_s, 3),
        )

    def _begin_account(self) -> None:
        self._cpu_began_s = self._cpu_s()
        self._gc_s = 0.0

    def _cpu_since_s(self) -> float:
        return round(self._cpu_s() - self._cpu_began_s, 3)

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

    @property
    def held_s(self) -> dict[Series, float]:
        """For how long steps of `HELD_S` and more held the loop since the start, in seconds, by kind of service."""
        return {(kind,): held_s for kind, held_s in self._held_s.items()}

    def _catch_up(self) -> None:
        now_s = self._now_s()
        if now_s - self._interval_s >= INTERVAL_S:
            self._turn(now_s)


@asynccontextmanager
async def open_loop_lag(lag: LoopLag) -> AsyncIterator[None]:
    """Observe the event loop that runs this, for the length of the block."""
    lag.after_io_wait(0)
    trio.lowlevel.add_instrument(lag)
    try:
        with lag.hearing_of_garbage():
            yield
    finally:
        trio.lowlevel.remove_instrument(lag)
