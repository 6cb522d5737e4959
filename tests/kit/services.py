"""Where services run in tests: a nursery that runs them again after a failure, as the node's supervision tree does.

async with open_services() as services:
    services.launch("redis", link.run)
    ...
    services.failures["redis"]      # why it ended, each time
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from notifyd.broker.base import Run
from notifyd.errors import NotifydError
from notifyd.supervision import unwrapped
from protocol.backoff import Backoff


class RunServices:
    """Implements `notifyd.broker.base.Services`. Only failures that notifyd foresees are followed by another run."""

    def __init__(self, nursery: trio.Nursery, longest_wait_s: float) -> None:
        self.failures: defaultdict[str, list[str]] = defaultdict(list)
        self._nursery = nursery
        self._longest_wait_s = longest_wait_s
        self._running: dict[str, tuple[trio.CancelScope, trio.Event]] = {}

    @property
    def names(self) -> set[str]:
        """What runs, or backs off."""
        return set(self._running)

    async def start(self, name: str, run: Run) -> None:
        """Start a service and wait until it serves; what it raises before that is raised here."""
        await self._nursery.start(self._supervise, name, run, False)

    def launch(self, name: str, run: Run) -> None:
        """Start a service without waiting for it."""
        assert name not in self._running, f"{name} runs already"
        self._running[name] = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._supervise, name, run, True)

    async def stop(self, name: str) -> None:
        """Cancel a service and wait until it has cleaned up."""
        scope, ended = self._running[name]
        scope.cancel()
        await ended.wait()

    async def _supervise(
        self, name: str, run: Run, patient: bool, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        scope, ended = self._running.setdefault(name, (trio.CancelScope(), trio.Event()))
        backoff = Backoff(base_s=0.02, cap_s=self._longest_wait_s)
        started = _Started(task_status, has_served=patient)
        try:
            with scope:
                while True:
                    await self._run_once(name, run, started)
                    started.waiting = trio.TASK_STATUS_IGNORED
                    await trio.sleep(backoff.next_delay_s())
        finally:
            del self._running[name]
            ended.set()

    async def _run_once(self, name: str, run: Run, started: "_Started") -> None:
        try:
            await run(task_status=started)
            await trio.lowlevel.checkpoint_if_cancelled()
            raise AssertionError(f"{name} returned, though nothing cancelled it")
        except* NotifydError as group:
            if not started.has_served:
                raise
            self.failures[name].append(str(unwrapped(group)))


class _Started:
    """The `task_status` a service is given."""

    def __init__(self, waiting: trio.TaskStatus[None], has_served: bool) -> None:
        self.waiting = waiting
        self.has_served = has_served

    def started(self, value: None = None) -> None:
        self.has_served = True
        self.waiting.started(value)


@asynccontextmanager
async def open_services(longest_wait_s: float = 0.2) -> AsyncIterator[RunServices]:
    """Run services for the length of the block."""
    async with trio.open_nursery() as nursery:
        yield RunServices(nursery, longest_wait_s)
        nursery.cancel_scope.cancel()
