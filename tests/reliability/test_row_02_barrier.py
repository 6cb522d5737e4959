"""RELIABILITY row 2: an exception, or a cancellation, at every single step of a connection's tasks.

Whole sessions run in memory and in virtual time. At the k-th step of any task of one connection an exception is thrown
into it, or the connection is cancelled; then nothing of it may be left, and its neighbour must not have felt it.
"""

import contextlib
from typing import Any

import pytest
import trio

from tests.kit.memory_node import TRANSPORTS, MemoryNode, Served, open_memory_node

MOST_STEPS = 400
"""More than any session here takes: the loop ends when a session ends before its step."""


class Injected(Exception):
    """What nobody foresaw."""


class AtStep(trio.abc.Instrument):
    """Counts the steps of one connection's tasks, and at step `at` throws into the task, or cancels the connection."""

    def __init__(self, served: Served, at: int, *, cancel: bool) -> None:
        self.done = False
        self._served = served
        self._left = at
        self._cancel = cancel

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.done or not self._owns(task) or (not self._cancel and _is_inside_trio(task)):
            return
        self._left -= 1
        if self._left:
            return
        self.done = True
        if self._cancel:
            self._served.scope.cancel()
        else:
            task._next_send_fn = task.coro.throw
            task._next_send = Injected()

    def _owns(self, task: trio.lowlevel.Task | None) -> bool:
        """Whether the task is the connection's or a child's; the very first step is the listener's."""
        while task is not None:
            if task is self._served.task:
                return True
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        return False


def _is_inside_trio(task: trio.lowlevel.Task) -> bool:
    """Whether a task has not begun, or waits in a nursery's end: Trio's own steps, where nothing can be raised."""
    waiting: Any = task.coro
    names = set()
    while waiting is not None and hasattr(waiting, "cr_frame"):
        names.add(waiting.cr_code.co_name)
        waiting = waiting.cr_await
    return "_nested_child_finished" in names or task.coro.cr_await is None  # type: ignore[attr-defined]


async def _session(node: MemoryNode, transport: str) -> None:
    """Connect, subscribe, publish, be slow, leave: whatever happens to the connection meanwhile."""
    client = await node.client(transport)
    await client.connect()
    await client.ask("subscribe", topic="busy")
    for number in range(3):
        await client.ask("publish", topic="busy", data=number)
    await client.ask("history", topic="busy")
    await client.ask("unsubscribe", topic="busy")
    await client.send({"op": "nonsense", "id": 99})
    await client.stream.finish(1)


async def _attempt(transport: str, step: int, *, cancel: bool) -> bool:
    """Run one session with an accident at `step`; False when it was over before."""
    async with open_memory_node() as node:
        neighbour = await node.connected("device")
        await neighbour.ask("subscribe", topic="busy")
        accident: Any = None

        class Watch(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal accident
                if accident is None and len(node.served) > 1 and node.served[1].task is not None:
                    accident = AtStep(node.served[1], step, cancel=cancel)
                if accident is not None:
                    accident.before_task_step(task)

        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        with trio.move_on_after(60):
            with contextlib.suppress(Exception):  # a client whose connection has an accident may see anything
                await _session(node, transport)
        trio.lowlevel.remove_instrument(watch)
        happened = accident is not None and accident.done
        assert (await neighbour.ask("ping"))["op"] == "pong"
        assert node.barrier_hits <= (0 if cancel or not happened else 1)
        await neighbour.stream.finish(1)
        await node.let_go()
        node.assert_empty()
        return happened


@pytest.mark.guard(60)
@pytest.mark.parametrize("accident", ["exception", "cancellation"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_accident_at_every_step_harms_nobody_else(transport: str, accident: str, autojump_clock: Any) -> None:
    steps = 0
    for step in range(1, MOST_STEPS):
        if not await _attempt(transport, step, cancel=accident == "cancellation"):
            break
        steps = step
    assert 5 < steps < MOST_STEPS - 1
