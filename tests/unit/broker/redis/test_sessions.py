"""Sessions in a real Redis: saved by their owner, taken over by another node, gone after their time."""

from collections.abc import AsyncIterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.base import SessionRecord
from notifyd.broker.redis import sessions
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.sessions import RedisSessions
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.position import Position
from tests.kit.lua_server import LuaServer, lua_server
from tests.kit.redis_process import RedisServer

NAMES = Names("test")
S1 = SessionId("s1")


def record(session: str = "s1", user: str = "ann") -> SessionRecord:
    positions = {"a:b": Position("x", 3), "no:history": None, "{": Position("y", 2**53)}
    return SessionRecord(SessionId(session), user, positions, frozenset({"a:b"}))


@pytest.fixture
async def server(redis_server: RedisServer) -> AsyncIterator[LuaServer]:
    with lua_server(redis_server.port) as server:
        yield server


@pytest.fixture
async def one(server: LuaServer) -> RedisSessions:
    return RedisSessions(server, NAMES, "n1")


@pytest.fixture
async def other(server: LuaServer) -> RedisSessions:
    return RedisSessions(server, NAMES, "n2")


async def test_a_session_is_resumed_where_it_was(one: RedisSessions) -> None:
    assert await one.save(record(), 60)
    assert await one.owner(S1) == "n1"
    assert await one.take(S1, "ann") == (record(), None)


async def test_an_unknown_session_is_none(one: RedisSessions) -> None:
    assert await one.take(S1, "ann") is None
    assert await one.owner(S1) is None


async def test_another_users_session_stays_where_it_is(one: RedisSessions, other: RedisSessions) -> None:
    await one.save(record(), 60)
    for user in ("bob", "", "ann\0", "ANN"):
        assert await other.take(S1, user) is None
    assert await one.owner(S1) == "n1"
    assert await one.take(S1, "ann") == (record(), None)


async def test_who_takes_a_session_over_is_told_whose_it_was(one: RedisSessions, other: RedisSessions) -> None:
    await one.save(record(), 60)
    assert await other.take(S1, "ann") == (record(), "n1")
    assert await other.owner(S1) == "n2"
    assert await other.take(S1, "ann") == (record(), None)
    assert await one.take(S1, "ann") == (record(), "n2")


async def test_a_session_taken_over_is_not_saved_by_the_node_it_left(one: RedisSessions, other: RedisSessions) -> None:
    await one.save(record(), 60)
    await other.take(S1, "ann")
    assert not await one.save(SessionRecord(S1, "ann", {"late": None}), 60)
    newer = SessionRecord(S1, "ann", {"a:c": None})
    assert await other.save(newer, 60)
    assert await one.take(S1, "ann") == (newer, "n2")


async def test_of_many_that_take_it_one_has_it_last(server: LuaServer, one: RedisSessions) -> None:
    await one.save(record(), 60)
    nodes = [RedisSessions(server, NAMES, f"m{number}") for number in range(10)]
    owners: list[str | None] = []

    async def take(node: RedisSessions) -> None:
        taken = await node.take(S1, "ann")
        assert taken is not None
        owners.append(taken[1])

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(take, node)
    assert len(set(owners)) == 10  # a chain: each took it from another
    assert await one.owner(S1) not in owners


async def test_a_session_ends_after_its_time(server: LuaServer, one: RedisSessions) -> None:
    await one.save(record("s1"), 0.05)
    await one.save(record("s2"), 60)
    await one.save(record("s3"), 5)
    assert await one.save(record("s3"), 60)
    assert server.client.pttl(NAMES.session("s3")) > 50_000
    await trio.sleep(0.1)
    assert await one.take(S1, "ann") is None
    assert await one.owner(S1) is None
    assert await one.take(SessionId("s2"), "ann") == (record("s2"), None)
    assert await one.take(SessionId("s3"), "ann") == (record("s3"), None)


async def test_to_take_a_session_does_not_prolong_it(server: LuaServer, one: RedisSessions) -> None:
    await one.save(record(), 60)
    await one.take(S1, "ann")
    assert 0 < server.client.pttl(NAMES.session(S1)) <= 60_000  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", "{", "}{", "'..redis.call('FLUSHALL')..'", "x" * 60_000, "🎈"])
async def test_a_name_that_a_client_made_up_is_only_a_name(one: RedisSessions, name: str) -> None:
    await one.save(record(), 60)
    assert await one.take(SessionId(name), "ann") is None
    await one.save(record(name, user=name), 60)
    assert await one.take(SessionId(name), name) == (record(name, user=name), None)
    assert await one.take(S1, "ann") == (record(), None)


async def test_a_record_of_another_version_is_none(server: LuaServer, one: RedisSessions) -> None:
    await one.save(record(), 60)
    server.client.hset(NAMES.session(S1), "r", b"\x91\xc0")
    assert await one.take(S1, "ann") is None


async def test_a_record_above_all_measure_is_refused(one: RedisSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_RECORD_BYTES", 100)
    await one.save(record(), 60)
    large = SessionRecord(S1, "ann", dict.fromkeys((f"topic:{number}" for number in range(20)), None))
    with pytest.raises(BrokerUnavailable, match="20 topics takes 195 bytes; 100 are kept"):
        await one.save(large, 60)
    assert await one.take(S1, "ann") == (record(), None)


_topics = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=10)
_positions = st.none() | st.builds(Position, _topics, st.integers(0, 2**63 - 1))


@given(positions=st.dictionaries(_topics, _positions, max_size=5), acknowledged=st.frozensets(_topics, max_size=3))
def test_every_record_is_read_as_it_was_written(
    positions: dict[str, Position | None], acknowledged: frozenset[str]
) -> None:
    written = SessionRecord(S1, "ann", positions, acknowledged)
    assert sessions._unpack(S1, "ann", sessions._pack(written)) == written
