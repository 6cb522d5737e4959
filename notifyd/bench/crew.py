"""The load processes of a run: started, told what to do, listened to, and ended whatever happens."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from notifyd.bench.orders import Cue, LoadPlan, LoadSnapshot, LoadStep
from notifyd.errors import NotifydError

_COMMAND = (sys.executable, "-m", "notifyd.bench.worker")

_LEAD_NS = 20_000_000
"""A step is told this long before its moment, so that all processes have read it by then."""

_END_S = 2.0
"""What a process gets to end by itself, when its stdin ends, before it is killed."""


class Crew:
    """The processes, and what each told last (`snapshots`; None until it has)."""

    def __init__(self, processes: Sequence[trio.Process]) -> None:
        self.snapshots: list[LoadSnapshot | None] = [None] * len(processes)
        self._processes = processes
        self._done_ns: list[int | None] = [None] * len(processes)
        self._step: LoadStep | None = None
        self._told = trio.Event()

    async def begin(self, step: LoadStep) -> int:
        """Have all processes begin a step at the same moment; return that, in nanoseconds."""
        if step is not LoadStep.MEASURE:
            self._step = step
            self._done_ns = [None] * len(self._processes)
        command = Cue(step, time.monotonic_ns() + _LEAD_NS)
        for process in self._processes:
            await write_line(process, command)
        return command.at_ns

    async def wait_done(self) -> int:
        """Wait until all have reached the goal of the last step; return when the last one had, in nanoseconds."""
        while None in self._done_ns:
            await self.wait_told()
        return max(done_ns for done_ns in self._done_ns if done_ns is not None)

    async def wait_told(self) -> None:
        """Wait until a process tells something."""
        await self._told.wait()

    def take(self, number: int, snapshot: LoadSnapshot) -> None:
        """Note what a process told."""
        self.snapshots[number] = snapshot
        if snapshot.is_done and snapshot.step is self._step and self._done_ns[number] is None:
            self._done_ns[number] = snapshot.at_ns
        told, self._told = self._told, trio.Event()
        told.set()


@asynccontextmanager
async def open_crew(plans: Sequence[LoadPlan], on_told: Callable[[Crew], None]) -> AsyncIterator[Crew]:
    """Start a process for each plan; `on_told` hears of every snapshot. They end with the block, cancelled or not.

    Raises NotifydError when a process ends by itself.
    """
    processes: list[trio.Process] = []
    try:
        for _ in plans:
            processes.append(await _start())  # noqa: PERF401 - those started are ended when the next cannot be
        crew = Crew(processes)
        async with trio.open_nursery() as nursery:
            for number, (process, plan) in enumerate(zip(processes, plans, strict=True)):
                await write_line(process, plan)
                nursery.start_soon(_listen, crew, number, process, on_told)
            yield crew
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                await _end(process)


async def _start() -> trio.Process:
    # A session of its own: Ctrl-C in a terminal is for the parent, which still wants to hear what was measured.
    return await trio.lowlevel.open_process(
        list(_COMMAND), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    with trio.move_on_after(_END_S):
        while await process.stdout.receive_some():
            pass
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    await process.stdout.aclose()


async def _listen(crew: Crew, number: int, process: trio.Process, on_told: Callable[[Crew], None]) -> None:
    assert process.stdout is not None
    decode = msgspec.json.Decoder(LoadSnapshot).decode
    unread = b""
    async for data in process.stdout:
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            crew.take(number, decode(line))
            on_told(crew)
    raise NotifydError(f"notifyd bench: load process {process.pid} ended by itself")


async def write_line(process: trio.Process, message: msgspec.Struct) -> None:
    """Tell a process something. A process that is gone is noticed by who listens to it."""
    assert process.stdin is not None
    try:
        await process.stdin.send_all(msgspec.json.encode(message) + b"\n")
    except trio.BrokenResourceError:
        await trio.sleep_forever()
