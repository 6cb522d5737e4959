"""Who is present, in a real Redis: joins, moves, and what dead nodes leave behind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import trio

from notifyd.broker.redis.envelope import read_change
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import NODE_TTL_S
from notifyd.broker.redis.presence import PRUNED_AT_ONCE, RedisPresence
from notifyd.errors import BrokerUnavailable
from protocol.messages import Joined, Member
from tests.kit.lua_server import Feed, LuaServer, lua_server
from tests.kit.redis_process import RedisServer

NAMES = Names("test")
BOTH = frozenset({"n1", "n2"})
HOSTILE = ["a:{b}", "}{", "%7B", "'..redis.call('FLUSHALL')..'", "🎈:é"]


def member(session: str, since: int = 1, user: str = "ann") -> Member:
    return Member(user=user, session=session, since=since)


@dataclass
class Room:
    """Two nodes in one topic, and what its subscribers hear."""

    server: LuaServer
    feed: Feed
    topic: str = "a:b"

    def __post_init__(self) -> None:
        self.one = RedisPresence(self.server, NAMES, "n1")
        self.other = RedisPresence(self.server, NAMES, "n2")

    async def join(self, node: RedisPresence, *members: Member) -> None:
        for each in members:
            await node.join(self.topic, each, announce=True)

    async def sessions(self, alive: frozenset[str] = BOTH) -> list[str]:
        return [each.session for each in await self.one.members(self.topic, alive)]

    def heard(self) -> list[tuple[str, str]]:
        """What was announced since the last call, as ("joined" or "left", session)."""
        changes = [read_change(self.topic, payload) for _, payload in self.feed.take()]
        return [("joined" if isinstance(change, Joined) else "left", change.session) for change in changes]


@pytest.fixture
async def room(redis_server: RedisServer) -> AsyncIterator[Room]:
    with lua_server(redis_server.port) as server:
        yield Room(server, Feed(server.client, NAMES.channel("*")))


# --- joining and leaving ----------------------------------------------------------------------------------------------


async def test_members_are_told_in_the_order_they_joined(room: Room) -> None:
    await room.join(room.one, member("s2"), member("s1"))
    await room.join(room.other, member("s3", since=1), member("s0", since=0))
    assert await room.one.members("a:b", BOTH) == [member("s0", since=0), member("s2"), member("s1"), member("s3")]
    assert await room.one.members("a:c", BOTH) == []
    assert room.heard() == [("joined", session) for session in ("s2", "s1", "s3", "s0")]


async def test_members_of_nodes_that_do_not_live_are_not_told(room: Room) -> None:
    await room.join(room.one, member("s1"))
    await room.join(room.other, member("s2"))
    assert await room.sessions(frozenset({"n2"})) == ["s2"]
    assert await room.sessions(frozenset()) == []


async def test_joining_twice_is_joining_once(room: Room) -> None:
    await room.join(room.one, member("s1", since=1), member("s2", since=2), member("s1", since=3))
    assert await room.one.members("a:b", BOTH) == [member("s1", since=1), member("s2", since=2)]
    assert room.heard() == [("joined", "s1"), ("joined", "s2")]
    await room.one.leave("a:b", member("s1"), announce=True)
    assert await room.sessions() == ["s2"]
    assert room.heard() == [("left", "s1")]


async def test_only_what_changes_is_announced_and_only_where_wanted(room: Room) -> None:
    await room.one.leave("a:b", member("s1"), announce=True)
    await room.one.join("a:b", member("s1"), announce=False)
    await room.one.leave("a:b", member("s2"), announce=True)
    await room.one.leave("a:c", member("s1"), announce=True)
    assert room.heard() == []
    await room.one.leave("a:b", member("s1"), announce=False)
    assert room.heard() == []
    assert await room.sessions() == []
    assert room.server.client.keys() == []


async def test_a_session_that_moved_is_not_taken_out_by_the_node_it_left(room: Room) -> None:
    await room.join(room.one, member("s1", since=1), member("s2", since=2))
    await room.join(room.other, member("s1", since=9))
    await room.one.leave("a:b", member("s1"), announce=True)
    assert await room.one.members("a:b", BOTH) == [member("s1", since=1), member("s2", since=2)]
    assert room.heard() == [("joined", "s1"), ("joined", "s2")]
    assert await room.sessions(frozenset({"n2"})) == ["s1"]
    await room.other.leave("a:b", member("s1"), announce=True)
    assert room.heard() == [("left", "s1")]


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_are_only_names(room: Room, name: str) -> None:
    room.topic = name
    await room.join(room.one, member(name, user=name))
    assert await room.one.members(name, BOTH) == [member(name, user=name)]
    await room.one.leave(name, member(name, user=name), announce=True)
    assert room.heard() == [("joined", name), ("left", name)]
    assert room.server.client.keys() == []


async def test_what_another_version_wrote_is_left_out(room: Room) -> None:
    room.server.client.hset(NAMES.presence("a:b"), "s9", b"\xc1")
    await room.join(room.one, member("s1"))
    assert await room.sessions() == ["s1"]


async def test_joins_and_leaves_at_once_leave_the_books_right(room: Room) -> None:
    """Whatever overtakes what: a topic with members of a node is among those that the node is known to be in."""
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for session in ("s1", "s2", "s3"):
                nursery.start_soon(_come_and_go, room, session)
        assert await room.sessions() == ["s1", "s2", "s3"]
        assert room.server.client.smembers(NAMES.members("n1")) == {b"a:b"}
        for session in ("s1", "s2", "s3"):
            await room.one.leave("a:b", member(session), announce=False)
        assert room.server.client.keys() == []


async def _come_and_go(room: Room, session: str) -> None:
    since = int(session[1:])
    for _ in range(10):
        await room.one.join("a:b", member(session, since), announce=False)
        await room.one.leave("a:b", member(session, since), announce=False)
    await room.one.join("a:b", member(session, since), announce=False)


async def test_a_node_is_in_a_topic_until_its_last_member_left(room: Room) -> None:
    await room.join(room.one, member("s1"), member("s2"))
    for session, left_in in (("s1", {b"a:b"}), ("unknown", {b"a:b"}), ("s2", set())):
        await room.one.leave("a:b", member(session), announce=False)
        assert room.server.client.smembers(NAMES.members("n1")) == left_in


# --- dead nodes -------------------------------------------------------------------------------------------------------


async def test_a_dead_nodes_members_leave_once(room: Room) -> None:
    await room.join(room.one, member("s1"), member("s2"))
    await room.one.join("a:b", member("quiet"), announce=False)
    await room.one.join("a:c", member("elsewhere"), announce=False)
    await room.join(room.other, member("s2"), member("s3"))
    room.heard()
    room.server.later(NODE_TTL_S + 1)
    assert await room.other.prune("n1")
    assert await room.sessions() == ["s2", "s3"]
    assert await room.one.members("a:c", BOTH) == []
    assert room.heard() == [("left", "s1")]
    assert room.server.client.keys("test:members:*") == [NAMES.members("n2").encode()]
    assert await room.other.prune("n1")
    assert room.heard() == []


async def test_many_members_leave_in_several_steps(room: Room) -> None:
    for number in range(2 * PRUNED_AT_ONCE + 1):
        await room.join(room.one, member(f"s{number}"))
    room.heard()
    room.server.later(NODE_TTL_S + 1)
    assert await room.other.prune("n1")
    assert len(room.heard()) == 2 * PRUNED_AT_ONCE + 1
    assert await room.sessions() == []


async def test_who_said_lately_that_it_is_here_is_not_removed(room: Room) -> None:
    """A node that stood still and came back tells again who is there, while others still clear up after it."""
    await room.join(room.one, member("s1"), member("s2"))
    room.server.later(NODE_TTL_S + 1)
    await room.join(room.one, member("s1"))
    room.heard()
    assert not await room.other.prune("n1")
    assert await room.sessions() == ["s1"]
    assert room.heard() == [("left", "s2")]
    assert room.server.client.smembers(NAMES.members("n1")) == {b"a:b"}
    room.server.later(NODE_TTL_S + 1)
    assert await room.other.prune("n1")
    assert room.heard() == [("left", "s1")]


async def test_what_goes_wrong_is_told(room: Room) -> None:
    room.server.client.set(NAMES.presence("a:b"), "no hash")
    with pytest.raises(BrokerUnavailable):
        await room.join(room.one, member("s1"))
    with pytest.raises(BrokerUnavailable):
        await room.sessions()
