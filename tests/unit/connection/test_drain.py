from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from notifyd.connection.drain import drain
from tests.kit.memory_node import TRANSPORTS, open_memory_node

on_both = pytest.mark.parametrize("transport", TRANSPORTS)


@on_both
async def test_every_client_is_told_and_those_that_stay_are_closed_evenly(
    transport: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        clients = [await node.connected(transport) for _ in range(30)]
        closed_s = []

        async def stay(client: object) -> None:
            await client.end()
            closed_s.append(node.time_s())

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(stay, client)
            await drain(node.context.connections, 10)
        goaway = {"op": "goaway", "reason": "shutdown", "after": 0.0, "within": 10.0}
        for client in clients:
            assert client.pushes[0] == goaway
            assert client.ended.code == 1012
            if transport == "device":
                assert client.pushes[-1]["reason"] == "restart"
        a_second = Counter(int(moment_s) for moment_s in closed_s)
        assert max(a_second.values()) <= 2 * len(clients) / 10
        assert max(closed_s) <= 10
        await node.let_go()
        node.assert_empty()


@on_both
async def test_it_is_over_at_once_when_all_have_left(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        clients = [await node.connected(transport) for _ in range(3)]

        async def leave_when_told() -> None:
            for client in clients:
                assert (await client.next_push())["op"] == "goaway"
                await trio.sleep(0.1)
                client.stream.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_when_told)
            await drain(node.context.connections, 1000)
        assert node.time_s() < 0.5


async def test_without_clients_it_is_over_at_once(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        await drain(node.context.connections, 1000)
        assert node.time_s() == 0


@on_both
async def test_who_is_not_connected_yet_is_not_waited_for(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        opened = await node.client(transport)
        silent = node.open_stream("websocket")
        await node.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, node.context.connections, 5)
            assert (await opened.end()).code == 1012
            assert await silent.receive_some() == b""
            assert node.time_s() == 1
            silent.close()


@on_both
async def test_a_client_that_does_not_read_holds_nobody_up(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        stuck = await node.connected(transport, capacity_bytes=400)
        await stuck.ask("subscribe", topic="a:b")
        for _ in range(20):
            await node.hub.publish("a:b", None)
        await drain(node.context.connections, 2)
        await node.context.connections.wait_empty()
        await node.let_go()
        assert node.time_s() <= 2 + 5 + 2
        node.assert_empty()


@on_both
async def test_cancelled_the_rest_stays_open(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        clients = [await node.connected(transport) for _ in range(4)]
        with trio.move_on_after(5.5):
            await drain(node.context.connections, 10)
        await node.sleep(1)
        assert len(node.connections) == 2
        assert (await clients[-1].ask("ping"))["op"] == "pong"
