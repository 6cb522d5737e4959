"""Requests that arrive together: answered together, in order, and none waits for another's answer."""

import pytest
import trio
from trio.testing import MockClock

from tests.kit.clients import Client
from tests.kit.memory_node import ENCODINGS, TRANSPORTS, MemoryNode, open_memory_node

pytestmark = [pytest.mark.parametrize("transport", TRANSPORTS), pytest.mark.parametrize("encoding", ENCODINGS)]


def publishes(client: Client, count: int) -> bytes:
    return b"".join(
        client.written({"op": "publish", "id": number, "topic": "a:b", "data": number})
        for number in range(1, count + 1)
    )


def recorded_writes(node: MemoryNode) -> list[int]:
    """The sizes of what the node writes to its one client from now on."""
    stream, sizes = node.connections[0].stream, list[int]()
    send_now = stream.send_now

    def record(data: bytes | memoryview) -> int:
        sizes.append(len(data))
        return send_now(data)

    stream.send_now = record  # type: ignore[method-assign]
    return sizes


async def test_replies_leave_in_one_write(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        writes = recorded_writes(node)
        await client.send_data(publishes(client, 16))
        assert [(await client.receive())["offset"] for _ in range(16)] == [*range(1, 17)]
        assert len(writes) == 1


async def test_so_do_the_messages_to_the_publisher_itself(
    transport: str, encoding: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node() as node:
        client = await node.connected(transport, encoding)
        await client.ask("subscribe", topic="a:b")
        writes = recorded_writes(node)
        await client.send_data(publishes(client, 5))
        received = [await client.receive() for _ in range(10)]
        assert [one["offset"] for one in received if one["op"] == "published"] == [1, 2, 3, 4, 5]
        assert [one["offset"] for one in received if one["op"] == "message"] == [1, 2, 3, 4, 5]
        assert len(writes) == 1


async def test_a_reply_waits_for_no_other(transport: str, encoding: str, autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        node.broker.is_shared = True
        client = await node.connected(transport, encoding)
        node.broker.pause("history")
        await client.send_data(publishes(client, 1) + client.written({"op": "history", "id": 2, "topic": "a:b"}))
        with trio.fail_after(1):  # the next heartbeat would take it along
            assert (await client.receive())["id"] == 1
        node.broker.resume("history")
        assert (await client.receive())["id"] == 2
