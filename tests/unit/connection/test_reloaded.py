"""New settings for clients that are connected: limits hold from the next message on, the agreed heartbeat stays."""

import msgspec
import pytest
from trio.testing import MockClock

from notifyd.settings import HeartbeatSettings, LimitSettings, Rate, Settings
from tests.kit.clients import Client
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, settings

on_both = pytest.mark.parametrize("transport", TRANSPORTS)


def reload(node: MemoryNode, **sections: object) -> Settings:
    """Let other sections hold."""
    changed = msgspec.structs.replace(node.context.settings, **sections)
    node.context.reload(changed)
    return changed


async def granted(client: Client, times: int) -> int:
    """How many of so many requests are not answered with 429."""
    answers = [await client.ask("unsubscribe", topic="a") for _ in range(times)]
    return sum(answer["op"] == "unsubscribed" for answer in answers)


@on_both
async def test_the_rate_changes_and_what_was_saved_up_stays(transport: str, autojump_clock: MockClock) -> None:
    async with open_memory_node(settings(limits=LimitSettings(messages=Rate(rate=1, burst=3)))) as node:
        client = await node.connected(transport)
        assert await granted(client, 4) == 2
        reload(node, limits=LimitSettings(messages=Rate(rate=10, burst=20)))
        assert await granted(client, 1) == 0, "nothing is given for nothing"
        await node.sleep(1)
        assert await granted(client, 20) == 10
        await node.sleep(10)
        reload(node, limits=LimitSettings(messages=Rate(rate=10, burst=1)))
        assert await granted(client, 3) == 1


@on_both
async def test_a_larger_payload_is_taken_and_a_smaller_limit_ends_who_is_above(
    transport: str, autojump_clock: MockClock
) -> None:
    async with open_memory_node(settings(limits=LimitSettings(payload_bytes=1024))) as node:
        client = await node.connected(transport)
        reload(node, limits=LimitSettings(payload_bytes=8192))
        assert (await client.ask("publish", topic="a", data="x" * 4000))["op"] == "published"
        reload(node, limits=LimitSettings(payload_bytes=1024))
        await client.send({"op": "publish", "topic": "a", "data": "x" * 4000})
        await client.end()
        assert client.ended.code in (1009, 4013)


async def test_the_queue_of_a_connection_changes(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        await node.connected()
        reload(node, limits=LimitSettings(queue_bytes=5000))
        assert [connection.outbox.budget_bytes for connection in node.connections] == [5000]


async def test_the_connections_of_a_user_share_the_new_bucket(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        first, second = [await node.connected(token_for="ada") for _ in range(2)]
        reload(node, limits=LimitSettings(user_messages=Rate(rate=1, burst=2)))
        assert [await granted(client, 1) for client in (first, second, first)] == [1, 1, 0]
        reload(node, limits=LimitSettings())
        assert await granted(second, 9) == 9
        reload(node, limits=LimitSettings(user_messages=Rate(rate=1, burst=5)))
        node.cancel_connections()
        await node.let_go()
        node.assert_empty()


async def test_whoever_is_silent_is_lost_by_the_new_misses_and_floor(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.connected(heartbeat=20)
        reload(node, heartbeat=HeartbeatSettings(misses=1, floor_s=3, minimum_s=25, interval_s=30))
        await client.end()
        assert client.ended.code == 4008
        assert node.time_s() == 20 + 3, "the interval that was agreed stays"


async def test_who_connects_after_it_agrees_within_the_new_bounds(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        client = await node.client()
        reload(node, heartbeat=HeartbeatSettings(minimum_s=25, interval_s=30))
        assert (await client.connect(heartbeat=20))["heartbeat"] == 25
