"""Nodes that die without a goodbye: their members are told to have left once, but for those that went on elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.broker.redis import membership
from notifyd.broker.redis.nodes import RedisNodes
from notifyd.broker.redis.presence import RedisPresence
from tests.kit.memory_node import policy
from tests.kit.redis_hub import RedisHub, RedisListening, open_redis_hub
from tests.kit.redis_process import RedisServer
from tests.kit.until import until

pytestmark = pytest.mark.guard(30)

TTL_S = 0.6
SEEN = policy("**", joins=True)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_defaults(RedisNodes), "ttl_s", TTL_S)
    monkeypatch.setitem(_defaults(RedisPresence), "node_ttl_s", TTL_S)
    monkeypatch.setattr(membership, "HEARTBEAT_S", TTL_S / 3)
    monkeypatch.setattr(membership, "PRUNE_AFTER_S", 2 * TTL_S)


def _defaults(kind: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = kind.__init__.__kwdefaults__
    return defaults


@asynccontextmanager
async def mortal(url: str, prefix: str) -> AsyncIterator[tuple[RedisHub, trio.CancelScope]]:
    """A hub whose scope kills it: no goodbye, its connections are gone."""
    scope = trio.CancelScope()

    async def live(*, task_status: trio.TaskStatus[RedisHub]) -> None:
        with scope:
            async with open_redis_hub(url, prefix, "mortal", SEEN) as hub:
                task_status.started(hub)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(live), scope
        scope.cancel()


def told(listener: RedisListening) -> list[tuple[str, str]]:
    return [(push["op"], push["session"]) for push in listener.read() if push["op"] in ("joined", "left")]


async def test_members_of_a_dead_node_leave_once_and_those_that_moved_stay(
    redis_server: RedisServer, redis_url: str, redis_prefix: str
) -> None:
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", SEEN) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", SEEN) as two,
        mortal(redis_url, redis_prefix) as (doomed, scope),
    ):
        watchers = [one.subscriber("eve", "w1"), two.subscriber("eve", "w2")]
        for watcher in watchers:
            await watcher.subscribe("a:1")
        for number in range(5):
            await doomed.subscriber("ada", f"s{number}").subscribe("a:1")
        await trio.sleep(0.2)
        for watcher in watchers:
            await until(lambda: ("joined", "s4") in told(watcher))  # noqa: B023 - used at once
        scope.cancel()
        record = await one.hub.resume("s0", "ada")
        assert record is not None
        moved = one.subscriber("ada", "s0")
        await moved.subscribe("a:1")
        await until(lambda: len(told(watchers[0])) > 8, 6 * TTL_S)
        await trio.sleep(2 * TTL_S)
        for watcher in watchers:
            left = sorted(session for op, session in told(watcher) if op == "left")
            assert left == ["s1", "s2", "s3", "s4"]
        assert sorted(member.session for member in await two.hub.presence("a:1")) == ["s0", "w1", "w2"]
        assert not [key for key in redis_server.cli("KEYS", f"{redis_prefix}:members:*") if "mortal" in key]
        assert len(await two.broker._membership._nodes.alive()) == 2


async def test_members_of_a_dead_node_are_present_no_more_once_it_counts_as_dead(
    redis_url: str, redis_prefix: str
) -> None:
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", SEEN) as one,
        mortal(redis_url, redis_prefix) as (
            doomed,
            scope,
        ),
    ):
        await doomed.subscriber("ada", "s1").subscribe("a:1")
        assert [member.session for member in await one.hub.presence("a:1")] == ["s1"]
        scope.cancel()
        await trio.sleep(1.3 * TTL_S)
        assert await one.hub.presence("a:1") == []


async def test_a_node_that_is_stopped_for_longer_than_it_lives_is_back_with_its_members(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", SEEN) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", SEEN) as two,
    ):
        await two.subscriber("ada", "s1").subscribe("a:1")
        beat = two.broker._membership._nodes.heartbeat
        stopped = trio.Event()

        async def late_heartbeat() -> Any:
            await stopped.wait()
            return await beat()

        monkeypatch.setattr(two.broker._membership._nodes, "heartbeat", late_heartbeat)
        await until(lambda: one.events.logged("node_gone"), 8 * TTL_S)
        assert await one.hub.presence("a:1") == []
        stopped.set()
        with trio.fail_after(3):
            while not await one.hub.presence("a:1"):  # noqa: ASYNC110 - asks Redis
                await trio.sleep(0.02)
        assert two.services.failures == {}
