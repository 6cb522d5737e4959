"""Wishes about one member that overlap: whatever is slow, cut short or taken over, the last one stands at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.broker.redis.membership import GRACE_S, PRUNE_AFTER_S, Membership
from notifyd.broker.redis.nodes import HEARTBEAT_S
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from tests.recorded_events import RecordedEvents
from tests.unit.broker.conformance import Received
from tests.unit.broker.redis.test_membership import Nodes, Store, member
from tests.unit.broker.redis.test_membership import opened as opened_store

STEP_S = 0.01


class SlowPresence:
    """Joins and leaves of two commands each, as RedisPresence has them; the second one takes effect."""

    def __init__(self) -> None:
        self.members: set[tuple[str, str]] = set()

    async def join(self, topic: str, member: Any, *, announce: bool) -> None:
        await trio.sleep(STEP_S)
        await trio.sleep(STEP_S)
        self.members.add((topic, member.session))

    async def leave(self, topic: str, member: Any, *, announce: bool) -> None:
        await trio.sleep(STEP_S)
        self.members.discard((topic, member.session))
        await trio.sleep(STEP_S)

    async def here(self) -> list[tuple[str, Any, bool]]:
        await trio.sleep(STEP_S)
        return [(topic, member(session), False) for topic, session in sorted(self.members)]


@asynccontextmanager
async def opened(presence: SlowPresence) -> AsyncIterator[Membership]:
    store = Store()
    parts: Any = (Nodes(store), presence, store, Received(), RecordedEvents())
    membership = Membership(*parts)
    async with trio.open_nursery() as nursery:
        await nursery.start(membership.run)
        await trio.sleep(1)
        yield membership
        nursery.cancel_scope.cancel()


async def cut_short(membership: Membership, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await membership.join("a:b", member(), announce=False)


@pytest.mark.parametrize("steps", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("pause", [0.0, 0.5, 1.5, 2.5])
async def test_a_leave_behind_a_join_that_was_cut_short_holds(
    steps: float, pause: float, autojump_clock: MockClock
) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership:
        await cut_short(membership, STEP_S * steps)
        await trio.sleep(STEP_S * pause)
        await membership.leave("a:b", member(), announce=False)
        await trio.sleep(1)
        assert presence.members == set()
        assert len(membership) == 0


@pytest.mark.parametrize("pause", [0.0, 0.5, 1.5, 2.5])
async def test_a_leave_while_the_join_is_being_written_holds(pause: float, autojump_clock: MockClock) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: membership.join("a:b", member(), announce=False))
        await wait_all_tasks_blocked()
        await trio.sleep(STEP_S * pause)
        await membership.leave("a:b", member(), announce=False)
        await trio.sleep(1)
        assert presence.members == set()
        assert len(membership) == 0


async def test_a_join_while_the_leave_is_being_written_holds(autojump_clock: MockClock) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership:
        await membership.join("a:b", member(), announce=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: membership.leave("a:b", member(), announce=False))
            await trio.sleep(STEP_S / 2)
            await membership.join("a:b", member(), announce=False)
            await trio.sleep(1)
        assert presence.members == {("a:b", "s")}


@pytest.mark.parametrize("steps", [0.5, 1.5])
async def test_a_session_that_was_taken_over_while_it_joined_is_gone_in_the_end(
    steps: float, autojump_clock: MockClock
) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership:
        await cut_short(membership, STEP_S * steps)
        membership.give_up(SessionId("s"))
        await membership.leave("a:b", member(), announce=False)
        await trio.sleep(GRACE_S + 1)
        assert presence.members == set()
        assert len(membership) == 0


async def test_a_session_that_came_back_leaves_at_once_again(autojump_clock: MockClock) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership:
        membership.give_up(SessionId("s"))
        membership.take_back(SessionId("s"))
        await membership.join("a:b", member(), announce=False)
        await membership.leave("a:b", member(), announce=False)
        assert presence.members == set()


async def test_a_cancelled_leave_happens_all_the_same(autojump_clock: MockClock) -> None:
    presence = SlowPresence()
    async with opened(presence) as membership:
        await membership.join("a:b", member(), announce=False)
        with trio.CancelScope() as scope:
            scope.cancel()
            await membership.leave("a:b", member(), announce=False)
        await trio.sleep(1)
        assert presence.members == set()


async def test_what_fails_beside_the_heartbeat_repeats_nothing_and_holds_up_no_burial(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    store.expired = ("bad", "dead")

    async def prune(node: str) -> bool:
        store.pruned.append(node)
        if node == "bad":
            raise BrokerUnavailable("WRONGTYPE")
        return True

    async def revoked() -> list[Any]:
        raise BrokerUnavailable("WRONGTYPE of the revocations")

    monkeypatch.setattr(store, "prune", prune)
    monkeypatch.setattr(store, "all", revoked)
    async with opened_store(store) as (membership, _, _):
        await membership.join("a:b", member(), announce=False)
        await trio.sleep(10)
        assert membership.problem == "WRONGTYPE of the revocations"
        assert len(store.writes) <= 2
        monkeypatch.undo()
        monkeypatch.setattr(membership._presence, "prune", prune)
        await trio.sleep(PRUNE_AFTER_S + HEARTBEAT_S)
        assert membership.problem is None
        assert "dead" in store.pruned
        assert store.expired == ("bad",)
        assert len(store.writes) <= 2
