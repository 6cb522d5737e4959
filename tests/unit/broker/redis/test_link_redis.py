"""A link against real redis-server processes, and a proxy in between that misbehaves."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from redis.exceptions import NoPermissionError, OutOfMemoryError

from notifyd.broker.redis.greeting import greeting
from notifyd.broker.redis.link import LinkLost
from notifyd.broker.redis.target import Credentials
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_links import dial_port, make_link, running_link
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import Cluster, standalone
from tests.kit.tcp_proxy import open_proxy

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may end, stop or configure."""
    with standalone() as server:
        yield server


async def test_commands_of_many_tasks_are_each_answered(redis_server: RedisServer) -> None:
    async with running_link(dial_port(redis_server.port)) as link:
        results: dict[int, list[Any]] = {}

        async def work(number: int) -> None:
            results[number] = [await link.execute("ECHO", f"{number}:{step}") for step in range(50)]

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(work, number)
        assert results == {number: [b"%d:%d" % (number, step) for step in range(50)] for number in range(100)}
        assert (link.commands_in_flight, link.bytes_in_flight) == (0, 0)


async def test_more_than_the_sockets_hold_travels_both_ways_at_once(redis_server: RedisServer) -> None:
    """Neither side may wait for the other to read: what is written blocks while replies pile up."""
    async with running_link(dial_port(redis_server.port), deadline_s=10) as link:
        await link.execute("SET", "large", b"y" * 2_000_000)
        large = os.urandom(8_000_000)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(link.execute, "SET", f"key{number}", large)
                nursery.start_soon(link.execute_all, [("GET", "large")] * 5)
        assert await link.execute("GET", "key2") == large
        assert link.bytes_in_flight == 0


async def test_messages_arrive_beside_replies(redis_server: RedisServer) -> None:
    pushes: list[list[Any]] = []
    async with running_link(dial_port(redis_server.port), on_pushes=pushes.extend) as link:
        await link.subscribe("SUBSCRIBE", ["a", "b"])
        assert await link.execute("PUBLISH", "a", "x") == 1
        assert pushes == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2], [b"message", b"a", b"x"]]
        await link.subscribe("UNSUBSCRIBE", ["a", "b", "never subscribed"])
        assert await link.execute("PUBLISH", "a", "x") == 0
        many = [f"channel{number}" for number in range(10_000)]
        await link.subscribe("SUBSCRIBE", many)
        assert len(pushes) == 6 + len(many)
        assert await link.execute("PUBLISH", "channel9999", "x") == 1


async def test_a_channel_that_is_not_allowed_is_refused(own_server: RedisServer) -> None:
    own_server.cli("ACL", "SETUSER", "ann", "on", ">secret", "~*", "&a", "+@all")
    async with running_link(dial_port(own_server.port), greeting(Credentials("ann", "secret"))) as link:
        with pytest.raises(NoPermissionError):
            await link.subscribe("SUBSCRIBE", ["a", "b"])
        await link.subscribe("SUBSCRIBE", ["a"])
        assert await link.execute("ECHO", "x") == b"x"


async def test_a_shards_channel_of_another_master_is_refused(redis_cluster: Cluster) -> None:
    channel = next(f"c{number}" for number in range(1000) if redis_cluster.slot_of(f"c{number}") < 5000)
    async with running_link(dial_port(redis_cluster.masters[2].port)) as link:
        with pytest.raises(Exception, match=f"127.0.0.1:{redis_cluster.masters[0].port}"):
            await link.subscribe("SSUBSCRIBE", [channel])
        assert await link.execute("ECHO", "x") == b"x"


async def test_a_stopped_server_is_noticed_within_the_deadline(own_server: RedisServer) -> None:
    async with running_link(dial_port(own_server.port), deadline_s=0.3, again=True) as link:
        own_server.stop_process()
        try:
            began_s = trio.current_time()
            with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.3 s"):
                await link.execute("GET", "a")
            assert 0.25 < trio.current_time() - began_s < 3.0
            with trio.fail_after(0.05), pytest.raises(BrokerUnavailable):
                await link.execute("GET", "a")
        finally:
            own_server.continue_process()
        with trio.fail_after(5):
            await link.wait_up()
        assert await link.execute("GET", "a") is None


async def test_a_killed_server_is_noticed_at_once_and_found_again(own_server: RedisServer) -> None:
    async with running_link(dial_port(own_server.port), again=True) as link:
        await link.execute("SET", "a", "1")
        before = link.server
        own_server.kill()
        with trio.fail_after(1):
            await link.wait_down()
        with pytest.raises(BrokerUnavailable):
            await link.execute("GET", "a")
        own_server.start()
        with trio.fail_after(5):
            await link.wait_up()
        assert await link.execute("GET", "a") == b"1"
        assert before is not None
        assert link.server is not None
        assert link.server.run_id != before.run_id


async def test_a_connection_that_the_server_kills_is_made_anew(redis_server: RedisServer) -> None:
    async with running_link(dial_port(redis_server.port), again=True) as link:
        for _ in range(3):
            redis_server.kill_clients()
            with trio.fail_after(5):
                await link.wait_down()
                await link.wait_up()
            assert await link.execute("ECHO", "x") == b"x"
        assert link.server is not None


@pytest.mark.parametrize("way", ["cut", "half_close", "stall"])
async def test_what_a_network_does_is_noticed(redis_server: RedisServer, way: str) -> None:
    async with (
        open_proxy(redis_server.port) as proxy,
        running_link(dial_port(proxy.port), deadline_s=0.4, again=True) as link,
    ):
        getattr(proxy, way)()
        with trio.fail_after(4):  # with a stall: the keepalive comes after 2 s
            await link.wait_down()
        proxy.resume()
        with trio.fail_after(5):
            await link.wait_up()
        assert await link.execute("ECHO", "x") == b"x"


async def test_half_closed_towards_the_server_it_closes_and_the_link_notices(redis_server: RedisServer) -> None:
    async with open_proxy(redis_server.port) as proxy, running_link(dial_port(proxy.port)) as link:
        proxy.half_close("server")
        with trio.fail_after(4):
            await link.wait_down()
        assert "closed the connection" in link.why_down or "broke" in link.why_down


async def test_a_master_that_became_a_replica_is_left_with_the_first_write(own_server: RedisServer) -> None:
    async with running_link(dial_port(own_server.port)) as link:
        own_server.cli("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable):
            await link.execute("SET", "a", "1")
        with trio.fail_after(1):
            await link.wait_down()
        assert "serves no writes" in link.why_down


async def test_a_script_that_writes_on_a_replica_is_known_too(own_server: RedisServer) -> None:
    async with running_link(dial_port(own_server.port)) as link:
        own_server.cli("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable, match="read only replica"):
            await link.execute("EVAL", "return redis.call('SET', KEYS[1], '1')", 1, "a")
        assert not link.is_up


async def test_a_full_server_says_so(own_server: RedisServer) -> None:
    own_server.cli("CONFIG", "SET", "maxmemory", "1mb")
    async with running_link(dial_port(own_server.port)) as link:
        with pytest.raises(OutOfMemoryError):
            await link.execute("SET", "a", b"x" * 100_000)
        assert link.is_up


async def test_a_server_with_too_many_clients_says_so(own_server: RedisServer) -> None:
    async with running_link(dial_port(own_server.port)) as link:
        await link.execute("CONFIG", "SET", "maxclients", 1)
        with pytest.raises(LinkLost, match="max number of clients reached"):
            await make_link(dial_port(own_server.port)).run()
        await link.execute("CONFIG", "SET", "maxclients", 100)


async def test_the_replication_id_follows_a_live_master(own_server: RedisServer) -> None:
    """A master's id changes while it runs: here, as its first replica comes."""
    async with running_link(dial_port(own_server.port)) as link:
        before = link.server
        assert before is not None
        with standalone(replicaof=f"127.0.0.1 {own_server.port}"):
            for _ in range(100):  # it attaches within a second, the keepalive comes within two
                await trio.sleep(0.1)
                assert link.server is not None
                if link.server.replication_id != before.replication_id:
                    break
        assert link.server.replication_id == own_server.info("replication")["master_replid"]
        assert link.server.replication_id != before.replication_id
