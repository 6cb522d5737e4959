"""The figures of all workers as one, put together in the parent for whichever worker was asked for them.

What a worker has counted is kept when its process is gone, as it was last told, so that totals never run backwards: the
process that replaces it begins at 0 and adds to them. What it counted after it was last asked is lost.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from notifyd.telemetry.snapshot import NOTHING, Snapshot, combined, lasting

TELL_S = 0.5
"""What a worker gets to tell its figures. One that takes longer hangs, and those that it told last count."""


class Told(Protocol):
    """A worker that can be asked."""

    figures: "WorkerFigures"

    async def ask_figures(self) -> bool:
        """Have the worker tell its `figures`; False where it does not."""

    def tell_all(self, figures: Snapshot) -> None:
        """Tell the worker the figures of all."""


class NodeFigures:
    """The figures of a node of several workers. `own` returns those of the parent; `run` is a service."""

    def __init__(self, workers: Sequence[Told], own: Callable[[], Snapshot]) -> None:
        self._workers = workers
        self._own = own
        self._askers: dict[Told, None] = {}
        self._asked = trio.Event()

    def ask(self, asker: Told) -> None:
        """Tell this worker the figures of all, soon."""
        self._askers[asker] = None
        self._asked.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer who asks, until cancelled."""
        task_status.started()
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            askers, self._askers = self._askers, {}
            figures = await self._gather()
            for asker in askers:
                asker.tell_all(figures)

    async def _gather(self) -> Snapshot:
        answered: set[Told] = set()

        async def ask(worker: Told) -> None:
            if await worker.ask_figures():
                answered.add(worker)

        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(ask, worker)
        own = self._own()
        known = [worker.figures.known(is_present=worker in answered) for worker in self._workers]
        whole = combined([Snapshot(own.counters, {}, own.histograms, own.process), *known])
        silent = len(self._workers) - len(answered)
        whole.gauges["workers"] = {("answering",): len(answered), ("silent",): silent}
        return whole


class WorkerFigures:
    """What the parent knows of one worker's figures, through all of its processes."""

    def __init__(self) -> None:
        self._before = NOTHING
        self._last = NOTHING
        self._told: trio.Event | None = None

    def ask(self) -> bool:
        """Note that the worker is to tell; False where it has been asked and has not answered yet."""
        if self._told is not None:
            return False
        self._told = trio.Event()
        return True

    def tell(self, figures: Snapshot) -> None:
        """Take what the worker tells."""
        self._last = figures
        if self._told is not None:
            self._told.set()
            self._told = None

    def forget_process(self) -> None:
        """Keep what lasts of a process that is gone, and ask it nothing any more."""
        self._before = combined([self._before, lasting(self._last)])
        self._last = NOTHING
        self._told = None

    async def wait(self) -> bool:
        """Wait for the answer; False where there is none within `TELL_S`."""
        told = self._told
        if told is not None:
            with trio.move_on_after(TELL_S):
                await told.wait()
        return told is None or told.is_set()

    def known(self, *, is_present: bool) -> Snapshot:
        """Return what is known; of a worker that does not answer, what lasts."""
        return combined([self._before, self._last if is_present else lasting(self._last)])
