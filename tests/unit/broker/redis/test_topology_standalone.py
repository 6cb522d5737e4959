from pathlib import Path
from typing import Any

import pytest
import trio

from notifyd.broker.redis.target import parse_target
from notifyd.broker.redis.topology.base import Servers
from notifyd.broker.redis.topology.linking import Linking
from notifyd.errors import BrokerUnavailable
from tests.certificates import Certificates, certificates
from tests.kit.redis_process import running_server
from tests.kit.redis_servers import RedisServer, standalone
from tests.kit.services import open_services
from tests.kit.until import until
from tests.recorded_events import RecordedEvents
from tests.unit.broker.redis.lua_scripts import COUNT, write_script
from tests.unit.broker.redis.open_servers import connected_servers, open_servers

__all__ = ["certificates"]


async def test_commands_scripts_and_scans_reach_the_one_server(
    redis_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    script = write_script(tmp_path, COUNT)
    async with connected_servers(redis_url) as servers:
        assert not servers.sharded
        assert await servers.execute("k", "SET", "k", "v") == b"OK"
        assert await servers.execute("k", "GET", "k") == b"v"
        replication_id = redis_server.info("replication")["master_replid"].encode()
        assert await servers.evaluate(script, ["c"], ["one"]) == [1, b"one", replication_id, b""]
        assert sorted(await servers.scan("[kc]")) == ["c", "k"]
        assert await servers.scan("nothing*") == []


async def test_a_script_is_sent_again_where_the_server_has_forgotten_it(
    redis_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    script = write_script(tmp_path, COUNT)
    async with connected_servers(redis_url) as servers:
        await servers.evaluate(script, ["c"], ["x"])
        redis_server.cli("SCRIPT", "FLUSH")
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(servers.evaluate, script, ["c"], ["x"])
        assert (await servers.evaluate(script, ["c"], ["x"]))[0] == 12
        assert redis_server.cli("SCRIPT", "EXISTS", script.sha) == [1]


async def test_errors_of_the_server_are_told_in_words(redis_url: str, tmp_path: Path) -> None:
    async with connected_servers(redis_url) as servers:
        await servers.execute("k", "SET", "k", "v")
        with pytest.raises(BrokerUnavailable, match=r"^redis at 127.0.0.1:\d+ refused: .*wrong kind of value"):
            await servers.execute("k", "LPUSH", "k", "v")
        with pytest.raises(BrokerUnavailable, match="went wrong on purpose"):
            await servers.evaluate(
                write_script(tmp_path, "return redis.error_reply('went wrong on purpose')"), ["k"], []
            )


async def test_a_server_that_is_not_there_is_told_at_once_and_used_when_it_comes(tmp_path: Path) -> None:
    with standalone() as server:
        server.kill()
        async with open_servers(server.url) as (servers, services):
            assert servers.problems() == [f"redis at {server.address} is connecting"]
            await until(lambda: services.failures["redis"])
            [problem] = servers.problems()
            assert problem in {
                f"redis at {server.address} is backing off: Connection refused",
                f"redis at {server.address} is connecting: Connection refused",
            }
            with (
                trio.fail_after(0.05),
                pytest.raises(BrokerUnavailable, match=f"redis at {server.address}: Connection ref"),
            ):
                await servers.execute("k", "GET", "k")
            server.start()
            await until(lambda: not servers.problems())
            assert await servers.execute("k", "SET", "k", "v") == b"OK"
            server.kill()
            with trio.fail_after(2), pytest.raises(BrokerUnavailable):
                await servers.execute("k", "GET", "k")
            server.start()
            await until(lambda: not servers.problems())
            assert await servers.execute("k", "GET", "k") == b"v"


async def test_a_server_that_stands_still_costs_the_deadline_once_and_then_nothing() -> None:
    with standalone() as server:
        async with connected_servers(server.url, 0.3) as servers:
            server.stop_process()
            with trio.fail_after(1), pytest.raises(BrokerUnavailable, match=r"no answer within 0\.3 s"):
                await servers.execute("k", "GET", "k")
            with trio.fail_after(0.05), pytest.raises(BrokerUnavailable):
                await servers.execute("k", "GET", "k")
            server.continue_process()
            await until(lambda: not servers.problems())
            assert await servers.execute("k", "GET", "k") is None


async def test_a_feed_is_a_link_of_its_own_to_the_same_server(redis_url: str, redis_server: RedisServer) -> None:
    pushes: list[list[Any]] = []
    async with open_servers(redis_url) as (servers, services):
        await until(lambda: not servers.problems())
        home = servers.feed_home("channel")
        assert home == redis_server.address
        feed = servers.open_feed(home, pushes.extend)
        await services.start("feed", feed.run)
        await feed.subscribe("SUBSCRIBE", ["channel"])
        await servers.execute("channel", "PUBLISH", "channel", "m")
        await until(lambda: [b"message", b"channel", b"m"] in pushes)
        assert {line.split(" name=")[1].split(" ")[0] for line in redis_server.cli("CLIENT", "LIST").splitlines()} == {
            "",
            "n1",
        }


async def test_a_unix_socket() -> None:
    with standalone(unix_socket=True) as server:
        async with connected_servers(f"{server.unix_url}?db=3") as servers:
            await servers.execute("k", "SET", "k", "v")
            assert server.info("keyspace").keys() == {"db3"}
            assert servers.feed_home("c") == str(server.unix_path)


async def test_a_password_and_users() -> None:
    with standalone(password="s3/cret", users={"node": ">t0ken ~* &* +@all"}) as server:
        async with connected_servers(f"redis://:s3%2Fcret@{server.address}") as servers:
            assert await servers.execute("k", "ACL", "WHOAMI") == b"default"
        async with connected_servers(f"redis://node:t0ken@{server.address}/2") as servers:
            assert await servers.execute("k", "ACL", "WHOAMI") == b"node"
        for userinfo in ("", "node:wr0ng@"):
            async with open_servers(f"redis://{userinfo}{server.address}") as (servers, services):
                await until(lambda: services.failures["redis"])
                [problem] = servers.problems()
                assert "password" in problem
                assert "wr0ng" not in problem + str(services.failures)


async def test_a_node_may_have_any_name(redis_url: str) -> None:
    linking = Linking(parse_target(redis_url), deadline_s=1.0, name="Büro 1\n", events=RecordedEvents())
    async with open_services() as services:
        link = linking.link(linking.target.endpoints[0])
        await services.start("redis", link.run)
        assert await link.execute("CLIENT", "GETNAME") == b"B_ro_1_"


async def test_tls_verifies_the_server(certificates: Certificates) -> None:
    with standalone(certificates=certificates) as server:
        async with connected_servers(f"{server.url}?ssl_ca_certs={certificates.authority}") as servers:
            assert await servers.execute("k", "SET", "k", "v") == b"OK"
        async with open_servers(server.url) as (servers, services):
            await until(lambda: services.failures["redis"])
            assert "certificate is not trusted" in servers.problems()[0]


async def test_a_write_can_wait_for_replicas(tmp_path: Path) -> None:
    script = write_script(tmp_path, COUNT)
    with (
        standalone(repl_diskless_sync_delay=0) as primary,
        running_server(replicaof=f"127.0.0.1 {primary.port}") as replica,
    ):
        await until(lambda: "state=online" in primary.info("replication").get("slave0", ""))
        await until(lambda: replica.info("replication")["master_link_status"] == "up")  # it may be loading until then
        primary.cli("SET", "confirmed", 1)
        await until(lambda: primary.cli("WAIT", 1, 500) == 1)  # and it may have more to do first
        async with connected_servers(primary.url, 4.0) as servers:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(lambda: servers.evaluate(script, ["c"], ["x"], replicas=1))
            assert replica.cli("GET", "c") == "100"
            with pytest.raises(BrokerUnavailable, match="1 of 2 replicas confirmed in time"):
                await servers.evaluate(script, ["c"], ["x"], replicas=2)
            replica.stop_process()
            waits = waits_of(primary)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(fails_to_confirm, servers, script)
                await trio.testing.wait_all_tasks_blocked()
                assert await servers.execute("c", "GET", "c") is not None  # later than one WAIT, and no more than that
            assert waits_of(primary) - waits <= 2
            assert not servers.problems()
            replica.continue_process()


def waits_of(server: RedisServer) -> int:
    return int(server.info("commandstats")["cmdstat_wait"].split("=")[1].split(",")[0])


async def fails_to_confirm(servers: Servers, script: Any) -> None:
    with pytest.raises(BrokerUnavailable, match="0 of 1 replicas confirmed in time"):
        await servers.evaluate(script, ["c"], ["x"], replicas=1)
