"""The registry of nodes and the revocations in a real Redis. Scripts are told a later time (`later`)."""

from collections.abc import AsyncIterator

import pytest

from notifyd.auth.revocations import Revocation
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import NODE_TTL_S, HeartbeatAnswer, RedisNodes
from notifyd.broker.redis.revoked import RedisRevocations
from tests.kit.lua_server import LuaServer, lua_server
from tests.kit.redis_process import RedisServer

NAMES = Names("test")


@pytest.fixture
async def server(redis_server: RedisServer) -> AsyncIterator[LuaServer]:
    with lua_server(redis_server.port) as server:
        yield server


def node(server: LuaServer, name: str) -> RedisNodes:
    return RedisNodes(server, NAMES, name)


async def test_a_node_that_beats_lives(server: LuaServer) -> None:
    one, other = node(server, "n1:a"), node(server, "n2:{b}")
    assert await one.alive() == frozenset()
    assert await one.heartbeat() == HeartbeatAnswer(known=False, alive=frozenset({"n1:a"}), expired=())
    assert await one.heartbeat() == HeartbeatAnswer(known=True, alive=frozenset({"n1:a"}), expired=())
    assert await other.heartbeat() == HeartbeatAnswer(known=False, alive=frozenset({"n1:a", "n2:{b}"}), expired=())
    assert await other.alive() == {"n1:a", "n2:{b}"}


async def test_a_node_that_beats_no_more_is_dead_and_later_expired(server: LuaServer) -> None:
    one, other = node(server, "n1"), node(server, "n2")
    await one.heartbeat()
    server.later(NODE_TTL_S - 1)
    assert (await other.heartbeat()).alive == {"n1", "n2"}
    server.later(1.1)
    assert await other.heartbeat() == HeartbeatAnswer(known=True, alive=frozenset({"n2"}), expired=())
    server.later(NODE_TTL_S - 1)
    assert (await other.heartbeat()).expired == ()
    server.later(1.1)
    assert await other.heartbeat() == HeartbeatAnswer(known=True, alive=frozenset({"n2"}), expired=("n1",))


async def test_a_node_that_was_dead_is_told_so(server: LuaServer) -> None:
    one = node(server, "n1")
    await one.heartbeat()
    server.later(NODE_TTL_S + 0.1)
    assert not (await one.heartbeat()).known
    assert (await one.heartbeat()).known


async def test_an_expired_node_is_removed_by_one_alone(server: LuaServer) -> None:
    one, other = node(server, "n1"), node(server, "n2")
    await one.heartbeat()
    for _ in range(2):
        assert not await other.remove("n1")  # it lives, or is dead not long enough
        server.later(NODE_TTL_S - 0.1)
    server.later(0.3)
    assert [await each.remove("n1") for each in (other, one, other)] == [True, False, False]
    assert not await other.remove("never:seen")
    await other.heartbeat()
    assert await other.alive() == {"n2"}


async def test_a_node_that_came_back_is_not_removed(server: LuaServer) -> None:
    one, other = node(server, "n1"), node(server, "n2")
    await one.heartbeat()
    server.later(3 * NODE_TTL_S)
    assert (await other.heartbeat()).expired == ("n1",)
    await one.heartbeat()
    assert not await other.remove("n1")
    assert await other.alive() == {"n1", "n2"}


async def test_a_node_that_leaves_is_gone(server: LuaServer) -> None:
    one, other = node(server, "n1"), node(server, "n2")
    await one.heartbeat()
    await one.leave()
    assert await other.heartbeat() == HeartbeatAnswer(known=False, alive=frozenset({"n2"}), expired=())
    assert server.client.zrange(NAMES.nodes(), 0, -1) == [b"n2"]
    await one.leave()


# --- revocations ------------------------------------------------------------------------------------------------------


async def now_s(server: LuaServer) -> float:
    return float(server.client.time()[0])


async def test_revocations_are_told_until_their_time(server: LuaServer) -> None:
    revocations = RedisRevocations(server, NAMES)
    assert await revocations.all() == []
    soon = Revocation(until_s=await now_s(server) + 10, token_id="{t}'\n")
    late = Revocation(until_s=await now_s(server) + 100.5, user="ann", before_s=17.25)
    endless = Revocation(until_s=float("inf"), user="bob")
    for revocation in (late, soon, endless, soon):
        await revocations.add(revocation)
    assert await revocations.all() == [soon, late, endless]
    server.later(11)
    assert await revocations.all() == [late, endless]
    assert server.client.zcard(NAMES.revoked()) == 3
    await revocations.add(late)
    assert server.client.zcard(NAMES.revoked()) == 2


async def test_one_that_is_over_already_is_not_kept(server: LuaServer) -> None:
    revocations = RedisRevocations(server, NAMES)
    await revocations.add(Revocation(until_s=1.0, token_id="t"))
    assert await revocations.all() == []
    assert not server.client.exists(NAMES.revoked())


async def test_the_last_one_takes_the_rest_with_it(server: LuaServer) -> None:
    revocations = RedisRevocations(server, NAMES)
    await revocations.add(Revocation(until_s=await now_s(server) + 100, token_id="t"))
    await revocations.add(Revocation(until_s=await now_s(server) + 10, token_id="u"))
    assert 99 <= server.client.ttl(NAMES.revoked()) <= 102  # type: ignore[operator]


async def test_what_another_version_wrote_is_left_out(server: LuaServer) -> None:
    revocations = RedisRevocations(server, NAMES)
    server.client.zadd(NAMES.revoked(), {b"\xc1": 2**33})
    await revocations.add(Revocation(until_s=2.0**33, token_id="t"))
    assert [revocation.token_id for revocation in await revocations.all()] == ["t"]
