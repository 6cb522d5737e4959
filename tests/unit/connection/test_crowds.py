"""A crowd of clients that connect at the same moment, as after the restart of a node: paced, and nobody is starved."""

from collections.abc import Awaitable, Callable
from math import ceil

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from notifyd.clock import Clock
from notifyd.connection.door import Crowded, Door
from notifyd.settings import LimitSettings, Rate
from protocol.errors import CloseCode
from tests.kit.clients import Refused
from tests.kit.memory_node import MemoryNode, open_memory_node, run_virtual, settings

CROWD = settings(limits=LimitSettings(connects=Rate(rate=10, burst=5)))

Connect = Callable[[MemoryNode], Awaitable[float | None]]


async def device(node: MemoryNode) -> float | None:
    """Connect a device; None when it was let in, else when it is to come again."""
    client = await node.device()
    await client.send({"op": "connect", "id": 1})
    reply = await client.reply(1)
    if reply["op"] == "connected":
        return None
    assert (reply["code"], reply["reason"]) == (503, "unavailable")
    return float(reply["retry_after"])


async def websocket(node: MemoryNode) -> float | None:
    """The same for a browser: it waits before its upgrade is answered."""
    try:
        await node.websocket()
    except Refused as refused:
        return float(refused.headers["retry-after"])  # of all refusals only this one has it
    return None


async def connect_all(node: MemoryNode, connect: Connect, count: int) -> list[tuple[float, float | None]]:
    """Let so many clients connect at once; when each had its answer, and when it is to come again."""
    answers: list[tuple[float, float | None]] = []

    async def one() -> None:
        again_s = await connect(node)
        answers.append((node.time_s(), again_s))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return answers


@pytest.mark.parametrize("connect", [device, websocket])
class TestACrowd:
    async def test_is_let_in_one_after_the_other(self, connect: Connect, autojump_clock: MockClock) -> None:
        async with open_memory_node(CROWD) as node:
            answers = await connect_all(node, connect, 50)
            assert [again_s for _, again_s in answers] == [None] * 50
            times = [when for when, _ in answers]
            begin_s = min(times)
            assert max(sum(second <= when - begin_s < second + 1 for when in times) for second in range(6)) <= 15
            assert 4.0 < max(times) - begin_s < 5.0

    async def test_beyond_patience_is_told_at_once_to_come_again_each_at_another_moment(
        self, connect: Connect, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(CROWD) as node:
            began_s = node.time_s()
            answers = await connect_all(node, connect, 170)
            again = [again_s for when, again_s in answers if again_s is not None and when < began_s + 0.01]
            assert 60 <= len(again) <= 70
            assert len(again) == sum(again_s is not None for _, again_s in answers)
            assert len({ceil(again_s) for again_s in again}) >= 4
            assert min(again) >= 5
            assert max(again) <= 15
            assert node.events.counted("refusals") == len(again)

    async def test_that_waits_and_goes_away_keeps_nobody(self, connect: Connect, autojump_clock: MockClock) -> None:
        async with open_memory_node(CROWD) as node:
            with trio.move_on_after(0.5):
                await connect_all(node, connect, 50)
            await node.let_go()
            await trio.sleep(1)
            assert await connect(node) is None
            assert node.context.door._waiting == 0


async def test_the_time_of_waiting_is_not_the_clients(autojump_clock: MockClock) -> None:
    async with open_memory_node(CROWD) as node:
        slow = await node.device()
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect_all, node, device, 90)
            await trio.sleep(0.1)
            await slow.send({"op": "connect", "id": 1})  # in time; its turn comes after its ten seconds
            assert (await slow.reply(1))["op"] == "connected"
            assert node.time_s() > 10


async def test_but_only_that_of_waiting(autojump_clock: MockClock) -> None:
    async with open_memory_node(CROWD) as node:
        slow = await node.device()
        async with trio.open_nursery() as nursery:
            await trio.sleep(9)
            for crowd in (170, 10):  # in the place of those who came in at once
                nursery.start_soon(connect_all, node, device, crowd)
                await trio.testing.wait_all_tasks_blocked()
            for number in range(1, 4):
                await slow.send({"op": "connect", "id": number})
                assert (await slow.reply(number))["code"] == 503
            assert (await slow.end()).code == CloseCode.UNAUTHORIZED
            assert node.time_s() == pytest.approx(10, abs=0.2)


async def test_a_client_that_came_through_the_handshake_does_not_wait_again(autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(limits=LimitSettings(connects=Rate(rate=0.3, burst=1)))) as node:
        client = await node.websocket()
        began_s = node.time_s()
        await client.send({"op": "connect", "id": 1})
        assert (await client.reply(1))["op"] == "connected"
        assert node.time_s() == began_s


@given(
    gaps=st.lists(st.floats(0, 0.2), min_size=1, max_size=60),
    rate=st.floats(1, 50),
    burst=st.integers(1, 10),
    lag_s=st.floats(0, 2),
)
def test_in_no_second_are_more_let_in_than_allowed_however_late_the_node_is(
    gaps: list[float], rate: float, burst: int, lag_s: float
) -> None:
    async def main() -> None:
        door = Door(Rate(rate=rate, burst=burst), 5.0, Clock())
        let_in: list[float] = []

        async def come() -> None:
            try:
                await door.pass_through()
            except Crowded:
                return
            let_in.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for number, gap_s in enumerate(gaps):
                await trio.sleep(gap_s + (lag_s if number == len(gaps) // 2 else 0))
                nursery.start_soon(come)
        assert let_in == sorted(let_in)
        for first, begin_s in enumerate(let_in):
            assert sum(when < begin_s + 1 for when in let_in[first:]) <= rate + burst + 1.001

    run_virtual(main)
