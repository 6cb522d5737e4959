"""Doing something at the k-th step of a connection's tasks: the way to try every moment there is.

A step is a run of one task from one checkpoint to the next. `Steps` counts those of the tasks below some task (a
connection is the task that serves it and all its nurseries hold) and calls `act` at the k-th:

    with at_step(belongs_to(served), k, served.scope.cancel) as steps:
        ...
    steps.seen          # how many there were in all, so that a first run tells how many k there are

`inject` makes the await that the task is about to return from raise instead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import outcome
import trio

from tests.kit.memory_node import Served

Task = trio.lowlevel.Task

UNTOUCHABLE = frozenset({"_nested_child_finished", "acquire", "_close_web_socket"})
"""Waits of the libraries that raise nothing but a cancellation: a nursery's for its tasks, a lock's for its owner,
trio-websocket's for the others to see that it is over."""


class Steps(trio.abc.Instrument):
    """Counts the steps of some tasks and acts at the k-th (from 0)."""

    def __init__(self, concerns: Callable[[Task], bool], at: int | None, act: Callable[[Task], bool]) -> None:
        self.seen = 0
        self.acted = False
        self._concerns = concerns
        self._at = at
        self._act = act

    def before_task_step(self, task: Task) -> None:
        if self._concerns(task):
            if self._at is not None and self.seen >= self._at and not self.acted:
                self.acted = self._act(task)
            self.seen += 1


@contextmanager
def at_step(concerns: Callable[[Task], bool], at: int | None, act: Callable[[Task], bool]) -> Iterator[Steps]:
    """Count steps while the block runs; from the step `at` on, `act` is tried until it returns True."""
    steps = Steps(concerns, at, act)
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


def belongs_to(served: Callable[[], Served | None]) -> Callable[[Task], bool]:
    """Return whether a task is that of a connection, or below it. `served` may know it later only."""

    def concerns(task: Task | None) -> bool:
        found = served()
        if found is None or found.task is None:
            return False
        while task is not None and task is not found.task:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None

    return concerns


def inject(error: Exception) -> Callable[[Task], bool]:
    """Return an act that makes the task's current await raise `error`; False where that await cannot raise."""

    def act(task: Task) -> bool:
        if not isinstance(task._next_send, outcome.Value):
            return False
        frames = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
        if UNTOUCHABLE.intersection(frames):
            return False
        task._next_send = outcome.Error(error)
        return True

    return act
