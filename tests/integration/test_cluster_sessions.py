"""Sessions that move between nodes: two that want one at once, and nobody who watches sees them flicker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from notifyd.broker.redis.membership import GRACE_S
from notifyd.node import Node
from tests.integration.cluster_waits import heard_all, wait_saved
from tests.kit.memory_node import policy
from tests.kit.redis_node import Caller, caller, open_redis_node, opened
from tests.reliability.line import LineLost

pytestmark = pytest.mark.guard(60)

TOPICS = ("a:1", "a:2", "a:3")
SEEN = policy("**", joins=True)


async def subscribe(client: Caller, *topics: str) -> None:
    for topic in topics:
        assert (await client.ask("subscribe", topic=topic))["op"] == "subscribed"


async def members(client: Caller, topic: str) -> list[str]:
    return sorted(member["session"] for member in (await client.ask("presence", topic=topic))["members"])


@asynccontextmanager
async def watched(url: str, prefix: str) -> AsyncIterator[tuple[Node, Node, Caller, Caller]]:
    """Two nodes; on the first a watcher, and a client of whose coming it has heard and whose session is saved."""
    async with (
        open_redis_node(url, prefix, "n1", SEEN) as one,
        open_redis_node(url, prefix, "n2", SEEN) as two,
    ):
        watcher, ada = await caller(one), await caller(one)
        await subscribe(watcher, *TOPICS)
        await subscribe(ada, *TOPICS)
        await wait_saved(url, prefix, ada.session, TOPICS)
        assert await changes(watcher) == [("joined", topic, ada.session) for topic in TOPICS]
        yield one, two, watcher, ada


async def changes(watcher: Caller) -> list[tuple[str, str, str]]:
    """Who came or went, once a change of each topic was heard; and what was heard beyond that."""
    return sorted((push["op"], push["topic"], push["session"]) for push in await heard_all(watcher, len(TOPICS)))


async def test_a_session_that_moves_is_not_seen_to_leave_or_join(redis_url: str, redis_prefix: str) -> None:
    async with watched(redis_url, redis_prefix) as (one, two, watcher, first):
        ada = first
        for node in (two, one, two, two):
            successor = await opened(node)
            answer = await successor.connect(session=ada.session)
            assert answer["resumed"] is True, answer
            assert set(answer["topics"]) == set(TOPICS)
            assert await ada.code() == 4100
            ada = successor
        await trio.sleep(GRACE_S + 0.5)
        assert await watcher.heard() == []
        for topic in TOPICS:
            assert await members(watcher, topic) == sorted([watcher.session, ada.session])
        ada.line.close()
        assert await changes(watcher) == [("left", topic, ada.session) for topic in TOPICS]


async def test_of_two_nodes_that_resume_a_session_at_once_one_has_it(redis_url: str, redis_prefix: str) -> None:
    async with watched(redis_url, redis_prefix) as (one, two, watcher, ada):
        session = ada.session
        for _ in range(8):
            rivals = [await opened(node) for node in (one, two)]
            codes: dict[Caller, int | None] = {}
            with trio.move_on_after(1.5):
                async with trio.open_nursery() as nursery:
                    for rival in rivals:
                        nursery.start_soon(_resume, rival, session, codes, nursery)
            assert list(codes.values()) == [4100]
            (winner,) = set(rivals) - set(codes)
            assert (await winner.ask("ping"))["op"] == "pong"
        await trio.sleep(GRACE_S + 0.5)
        assert await watcher.heard() == []
        for topic in TOPICS:
            assert await members(watcher, topic) == sorted([watcher.session, session])
        assert (await winner.ask("unsubscribe", topic="a:1"))["op"] == "unsubscribed"


async def _resume(rival: Caller, session: str, codes: dict[Caller, int | None], nursery: trio.Nursery) -> None:
    try:
        assert (await rival.ask("connect", session=session))["resumed"] is True
        codes[rival] = await rival.code()
    except LineLost as lost:
        codes[rival] = lost.code
    await trio.sleep(0.2)  # the other one shall stay
    nursery.cancel_scope.cancel()
