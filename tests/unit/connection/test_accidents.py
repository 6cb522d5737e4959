"""A connection, or the whole node, cancelled at any of its checkpoints leaves nothing behind; nor does an exception."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.kit.busy import busy_settings, fill, opened, visit, visit_again
from tests.kit.checkpoints import Task, at_step, belongs_to, inject
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, run_virtual

STRIDE = 3
"""Every so many checkpoints are tried; the long form tries all."""

Accident = Callable[[str, int | None], Awaitable[int]]


def serving(node: MemoryNode, number: int) -> object:
    return lambda: node.served[number] if len(node.served) > number else None


class Injected(Exception):
    """What nobody foresaw."""


def cancelled(node: MemoryNode) -> Callable[[Task], bool]:
    def act(task: Task) -> bool:
        node.served[1].scope.cancel()
        return True

    return act


async def visit_with(accident: Callable[[MemoryNode], Callable[[Task], bool]], transport: str, at: int | None) -> int:
    """Let an accident happen to a busy connection at its step `at`; return how many steps there are."""
    async with open_memory_node(busy_settings()) as node:
        await fill(node)
        healthy = await node.connected(transport, token_for="bob")
        await healthy.ask("subscribe", topic="h:h")
        with at_step(belongs_to(serving(node, 1)), at, accident(node)) as steps:
            client = opened(node, transport)
            await visit(node, client)
            await node.served[1].over.wait()
        await visit_again(node, opened(node, transport), client.session)
        await node.hub.publish("h:h", 1)
        assert (await healthy.next_push())["data"] == 1
        healthy.stream.end()
        await node.let_go()
        node.assert_empty()
        assert node.barrier_hits == (accident is injected and steps.acted)
        assert len(node.broker._broker._sessions) <= 2
        await trio.sleep(70)
        assert len(node.broker._broker._sessions) == 0, "sessions are forgotten after their time"
        return steps.seen


def injected(_node: MemoryNode) -> Callable[[Task], bool]:
    return inject(Injected())


async def cancel_connection(transport: str, at: int | None) -> int:
    return await visit_with(cancelled, transport, at)


async def raise_in_connection(transport: str, at: int | None) -> int:
    return await visit_with(injected, transport, at)


def only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(only_cancelled, error.exceptions))
    return isinstance(error, trio.Cancelled)


async def cancel_node(transport: str, at: int | None) -> int:
    """Cancel everything at the step `at` of a busy connection; return how many steps it took."""
    async with open_memory_node(busy_settings()) as node:
        await fill(node)

        def cancel(task: Task) -> bool:
            node._nursery.cancel_scope.cancel()
            return True

        with at_step(belongs_to(serving(node, 0)), at, cancel) as steps:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(visit, node, opened(node, transport))
            for served in node.served:
                await served.over.wait()
    assert not node.hub.registry.topics
    assert not node.hub.registry.subscribers
    assert not len(node.context.connections)
    assert node.admission.count == 0
    assert not node.context.user_buckets._buckets
    assert not len(node.broker._broker._presence)
    for served in node.served:
        assert served.stream.closed
        assert served.error is None or only_cancelled(served.error)
    assert node.barrier_hits == 0
    return steps.seen


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("accident", [cancel_connection, cancel_node, raise_in_connection])
def test_an_accident_at_any_checkpoint_leaves_nothing(accident: Accident, transport: str) -> None:
    steps = run_virtual(accident, transport, None)
    assert steps > 50, "the visit is busy"
    for at in range(steps % STRIDE, steps, STRIDE):
        run_virtual(accident, transport, at)


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("accident", [cancel_connection, cancel_node, raise_in_connection])
def test_an_accident_at_every_checkpoint_leaves_nothing(accident: Accident, transport: str) -> None:
    for at in range(run_virtual(accident, transport, None)):
        run_virtual(accident, transport, at)
