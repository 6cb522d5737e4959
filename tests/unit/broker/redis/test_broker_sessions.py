"""Sessions between brokers over one Redis: nodes that act late, for what is not theirs any more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from notifyd.broker.base import SessionRecord
from notifyd.broker.redis import membership, sessions
from notifyd.hub.watches import TREE_TOPIC
from notifyd.model import SessionId
from protocol.errors import CloseCode
from protocol.messages import Member
from protocol.position import Position
from tests.kit.memory_node import policy
from tests.kit.redis_hub import RedisHub, open_redis_hub
from tests.kit.until import until

SESSION = SessionId("s")
ADA = Member(user="ada", session="s", since=1)
GRACE_S = 0.3


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "GRACE_S", GRACE_S)


def record(offset: int = 1) -> SessionRecord:
    return SessionRecord(SESSION, "ada", {"a:b": Position("e", offset)})


@asynccontextmanager
async def pair(url: str, prefix: str) -> AsyncIterator[tuple[RedisHub, RedisHub]]:
    """Two hubs; the session is the first one's."""
    seen = policy("**", joins=True)
    async with open_redis_hub(url, prefix, "n1", seen) as one, open_redis_hub(url, prefix, "n2", seen) as two:
        assert await one.broker.save_session(record(), 60.0)
        await one.broker.join("a:b", ADA, announce=True)
        yield one, two


async def present(hub: RedisHub) -> list[str]:
    return [member.session for member in await hub.broker.presence("a:b")]


async def test_a_node_that_joins_late_does_not_take_the_session_out_when_it_leaves(
    redis_url: str, redis_prefix: str
) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        watcher = two.subscriber("eve", "w")
        await watcher.subscribe("a:b")
        assert await two.broker.load_session(SESSION, "ada") is not None
        await two.broker.join("a:b", ADA, announce=True)
        await one.broker.join("a:b", ADA, announce=True)  # it was stopped until now
        assert await one.broker.save_session(record(), 60.0) is False
        await one.broker.leave("a:b", ADA, announce=True)
        await trio.sleep(2 * GRACE_S)
        assert await present(two) == ["s", "w"]
        assert watcher.read() == []
        await two.broker.leave("a:b", ADA, announce=True)
        assert await present(two) == ["w"]
        await until(lambda: [push["op"] for push in watcher.read()] == ["left"])


async def test_a_node_that_lost_a_session_unheard_leaves_late_too(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        one.broker._control.handlers["take_over"] = lambda _message: None  # it did not hear
        assert await two.broker.load_session(SESSION, "ada") is not None
        assert await one.broker.save_session(record(2), 60.0) is False
        await one.broker.leave("a:b", ADA, announce=True)
        assert await present(two) == ["s"]
        await until(lambda: one.broker._membership._pending == {}, 3)
        assert await present(two) == []


async def test_a_session_that_comes_back_at_once_leaves_at_once(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        for broker in (two.broker, one.broker):
            assert await broker.load_session(SESSION, "ada") is not None
            await broker.join("a:b", ADA, announce=True)
        await one.broker.leave("a:b", ADA, announce=True)
        assert await present(two) == []


async def test_a_node_that_starts_anew_joins_after_one_that_had_taken_the_session(
    redis_url: str, redis_prefix: str
) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        for broker in (two.broker, one.broker, two.broker, one.broker):
            assert await broker.load_session(SESSION, "ada") is not None
            await broker.join("a:b", ADA, announce=True)
            assert [entry.node for entry in await one.broker._membership._presence._entries("a:b")] == [broker.node]


async def test_a_takeover_that_was_overtaken_itself_closes_nothing(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        ada = one.subscriber("ada", "s")
        asked: list[dict[str, Any]] = []
        give_up = one.broker._control.handlers["take_over"]
        one.broker._control.handlers["take_over"] = asked.append  # type: ignore[assignment]
        assert await two.broker.load_session(SESSION, "ada") is not None  # its question is still on its way ...
        assert await one.broker.load_session(SESSION, "ada") is not None
        assert give_up(asked[0]) == {"record": None}
        assert ada.ended == [CloseCode.REPLACED]  # by the takeover of its own node: it was the other one's by then
        winner = one.subscriber("ada", "s")
        assert give_up(asked[0]) == {"record": None}
        assert winner.ended == []
        assert await one.broker.save_session(record(), 60.0)


async def test_what_is_known_of_sessions_is_forgotten(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "UNSAVED_S", 0.01)
    async with pair(redis_url, redis_prefix) as (one, two):
        for number in range(3 * sessions.CLAIMS_BETWEEN_SWEEPS):
            name = SessionId(f"x{number}")
            assert await one.broker.save_session(SessionRecord(name, "ada"), 5.0)
            assert await two.broker.load_session(name, "ada") is not None
        assert len(two.broker._sessions._sessions._claims) < 2 * sessions.CLAIMS_BETWEEN_SWEEPS


async def test_another_node_hears_what_is_watched(redis_url: str, redis_prefix: str) -> None:
    async with pair(redis_url, redis_prefix) as (one, two):
        await one.broker.tell_watched([TREE_TOPIC, "$sys:other"])
        await until(lambda: two.hub.watches.watched() == {TREE_TOPIC})
        assert one.hub.watches.watched() == frozenset()
