"""Heartbeats, members that could not be written, and dead nodes, in virtual time; real Redis is in test_conformance."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from notifyd.auth.revocations import Revocation
from notifyd.broker.redis.membership import GRACE_S, PRUNE_AFTER_S, RETRY_S, Membership
from notifyd.broker.redis.nodes import HEARTBEAT_S, HeartbeatAnswer
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.messages import Member
from tests.recorded_events import RecordedEvents
from tests.unit.broker.conformance import Received

REVOCATION = Revocation(until_s=2e9, token_id="j")


class Store:
    """Nodes, presence and revocations as Redis would keep them; `away` and `refused` topics make writes fail."""

    node = "me"

    def __init__(self) -> None:
        self.away = False
        self.refused: set[str] = set()
        self.known = False
        self.expired: tuple[str, ...] = ()
        self.beats: list[float] = []
        self.members: set[tuple[str, str]] = set()
        self.writes: list[tuple[str, str, str]] = []
        self.pruned: list[str] = []
        self.has_left = False

    async def _meet(self) -> None:
        await trio.sleep(0.001)
        if self.away:
            raise BrokerUnavailable("away")

    async def heartbeat(self) -> HeartbeatAnswer:
        await self._meet()
        self.beats.append(trio.current_time())
        known, self.known = self.known, True
        return HeartbeatAnswer(known, frozenset({"me"}), self.expired)

    async def alive(self) -> frozenset[str]:
        await self._meet()
        return frozenset({"other"})

    async def remove(self, node: str) -> bool:
        await self._meet()
        self.expired = tuple(one for one in self.expired if one != node)
        return True

    async def prune(self, node: str) -> bool:
        await self._meet()
        self.pruned.append(node)
        return True

    async def leave_cluster(self) -> None:
        await self._meet()
        self.has_left = True

    async def all(self) -> list[Revocation]:
        await self._meet()
        return [REVOCATION]

    async def write(self, what: str, topic: str, session: str) -> None:
        await self._meet()
        if topic in self.refused:
            raise BrokerUnavailable("WRONGTYPE")
        self.writes.append((what, topic, session))
        (self.members.add if what == "join" else self.members.discard)((topic, session))


class Presence:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.prune = store.prune

    async def here(self) -> list[tuple[str, Member, bool]]:
        await self._store._meet()
        return [(topic, member(session), True) for topic, session in sorted(self._store.members)]

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        await self._store.write("join", topic, member.session)

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        await self._store.write("leave", topic, member.session)

    async def members(self, topic: str, alive: Any) -> list[Member]:
        return [member(session) for where, session in self._store.members if where == topic and "me" in alive]


class Nodes:
    node = "me"

    def __init__(self, store: Store) -> None:
        self.heartbeat, self.alive, self.remove, self.leave = (
            store.heartbeat,
            store.alive,
            store.remove,
            store.leave_cluster,
        )


def member(session: str = "s") -> Member:
    return Member(user="ada", session=session, since=1)


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[tuple[Membership, Received, RecordedEvents]]:
    received, events = Received(), RecordedEvents()
    parts: Any = (Nodes(store), Presence(store), store, received, events)
    membership = Membership(*parts)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        yield membership, received, events
        nursery.cancel_scope.cancel()


async def test_a_member_is_written_at_once_and_taken_out_again(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        await trio.sleep(0.1)  # the first beat writes what is there again
        await membership.join("a:b", member(), announce=False)
        assert await membership.members("a:b") == [member()]
        await membership.leave("a:b", member(), announce=False)
        assert store.writes == [("join", "a:b", "s"), ("leave", "a:b", "s")]
        assert len(membership) == 0


async def test_it_beats_and_learns_the_revocations(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, received, _):
        await trio.sleep(HEARTBEAT_S * 3 + 1)
        assert len(store.beats) == 4
        assert received.revoked == [REVOCATION]
        assert membership.is_informed
        membership.missed()
        await trio.sleep(1)
        assert received.revoked == [REVOCATION] * 2
        assert await membership.others() == ["other"]


async def test_what_cannot_be_written_is_written_when_redis_is_back(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        await membership.join("a:b", member("early"), announce=False)
        store.away = True
        await membership.join("a:b", member("late"), announce=False)
        await membership.leave("a:b", member("early"), announce=False)
        await trio.sleep(60)
        store.away = False
        await trio.sleep(RETRY_S * 3)
        assert store.members == {("a:b", "late")}
        assert len(membership) == 1


async def test_of_two_wishes_the_later_one_holds(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        store.away = True
        for _ in range(3):
            await membership.join("a:b", member(), announce=False)
            await membership.leave("a:b", member(), announce=False)
        store.away = False
        await trio.sleep(RETRY_S * 3)
        assert store.members == set()
        assert len(membership) == 0


async def test_a_store_that_forgot_is_told_again(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        for number in range(200):
            await membership.join(f"a:{number}", member(), announce=False)
        store.members.clear()
        store.known = False
        await trio.sleep(HEARTBEAT_S + 1)
        assert len(store.members) == 200


async def test_one_that_is_refused_for_ever_does_not_hold_up_or_repeat_the_others(autojump_clock: MockClock) -> None:
    store = Store()
    store.refused = {"a:0"}
    async with opened(store) as (membership, _, _):
        for number in range(200):
            await membership.join(f"a:{number}", member(), announce=False)
        await trio.sleep(60)
        assert len(store.members) == 199
        assert len(store.writes) < 450  # each once, and again by the first beat; not once a second
        assert 10 <= len(store.beats) <= 14


async def test_cancelled_a_wish_is_fulfilled_all_the_same(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        with trio.move_on_after(0.0005):
            await membership.join("a:b", member(), announce=False)
        await trio.sleep(1)
        assert store.members == {("a:b", "s")}


async def test_a_session_that_went_to_another_node_leaves_late(autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        await membership.join("a:b", member(), announce=False)
        membership.give_up(SessionId("s"))
        await membership.leave("a:b", member(), announce=False)
        await trio.sleep(GRACE_S - 0.5)
        assert store.members
        await trio.sleep(1)
        assert not store.members


async def test_dead_nodes_are_buried_but_not_by_one_that_was_away_itself(autojump_clock: MockClock) -> None:
    store = Store()
    store.expired = ("dead",)
    async with opened(store) as (_, _, events):
        await trio.sleep(PRUNE_AFTER_S - HEARTBEAT_S)
        store.away = True
        await trio.sleep(HEARTBEAT_S * 2)
        store.away = False
        await trio.sleep(PRUNE_AFTER_S - HEARTBEAT_S)
        assert store.pruned == []
        await trio.sleep(HEARTBEAT_S * 3)
        assert store.pruned == ["dead"]
        assert len(events.logged("node_gone")) == 1


@pytest.mark.parametrize("has_members", [False, True])
async def test_with_members_left_it_does_not_say_goodbye(has_members: bool, autojump_clock: MockClock) -> None:
    store = Store()
    async with opened(store) as (membership, _, _):
        if has_members:
            await membership.join("a:b", member(), announce=False)
        await membership.say_goodbye()
        assert store.has_left is not has_members


async def test_a_member_that_the_store_has_for_no_reason_is_taken_out(autojump_clock: MockClock) -> None:
    """A server that was promoted may not know of the last leaves."""
    store = Store()
    async with opened(store) as (membership, _, _):
        await membership.join("a:b", member("stays"), announce=True)
        await trio.sleep(1)
        store.members.add(("a:b", "ghost"))
        membership.missed()
        await trio.sleep(1)
        assert store.members == {("a:b", "stays")}
