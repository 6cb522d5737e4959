from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from notifyd.broker.redis.link import ignore
from notifyd.broker.redis.topology.base import Servers
from notifyd.broker.redis.topology.sentinel import SentinelServers
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_servers import SERVICE, RedisServer, sentinel_set
from tests.kit.scripted_redis import ScriptedRedis, array, bulk, error, information, integer, null, push
from tests.kit.services import RunServices, open_services
from tests.kit.until import until
from tests.unit.broker.redis.lua_scripts import COUNT, write_script
from tests.unit.broker.redis.open_servers import connected_servers, open_servers
from tests.unit.broker.redis.scripted_linking import ScriptedLinking

SENTINELS = ("s:1", "s:2", "s:3")
URL = f"redis+sentinel://{','.join(SENTINELS)}/main/0"

# --- in virtual time --------------------------------------------------------------------------------------------------


class Watched(ScriptedLinking):
    """Three Sentinels and two servers, `a:1` and `b:1`; the Sentinels name the first, until they are told otherwise."""

    def __init__(self) -> None:
        super().__init__(URL, [*SENTINELS, "a:1", "b:1"])
        for address in SENTINELS:
            self.servers[address].info = information(redis_mode="sentinel")
        for address in ("a:1", "b:1"):
            self.set_role(address, "master")
        self.name_master("a:1")

    def set_role(self, address: str, role: str) -> None:
        self.servers[address].info = information(role=role)
        self.servers[address].reply("ROLE", array(bulk(role), integer(0), array()))

    def name_master(self, address: str, *sentinels: str) -> None:
        host, port = address.split(":")
        for sentinel in sentinels or SENTINELS:
            self.servers[sentinel].reply("SENTINEL", array(bulk(host), bulk(port)))

    def tell_switch(self, text: str, kind: bytes = b"message") -> None:
        """Publish +switch-master on every Sentinel that somebody listens to."""
        for sentinel in SENTINELS:
            for connection in self.servers[sentinel].connections:
                if b"+switch-master" in connection.channels:
                    connection.send(push(kind, b"+switch-master", text.encode()))

    @property
    def listened(self) -> list[str]:
        """The Sentinels that somebody listens to."""
        return [
            address
            for address in SENTINELS
            if any(b"+switch-master" in connection.channels for connection in self.servers[address].connections)
        ]


@asynccontextmanager
async def served(linking: Watched, seconds: float = 1.0) -> AsyncIterator[tuple[SentinelServers, RunServices]]:
    async with linking.running(), open_services() as services:
        servers = SentinelServers(linking)
        await servers.start(services)
        await trio.sleep(seconds)
        yield servers, services


async def test_the_master_is_asked_for_verified_and_used(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, services):
        assert services.names == {"redis", "sentinel"}
        assert servers.problems() == []
        assert servers.feed_home("channel") == "a:1"
        await servers.execute("k", "SET", "k", "v")
        assert linking.servers["a:1"].strings == {b"k": b"v"}
        assert linking.servers["a:1"].called("ROLE")
        assert not services.failures


async def test_the_next_sentinel_is_asked_when_one_is_away_silent_or_ignorant(autojump_clock: MockClock) -> None:
    linking = Watched()
    linking.crash("s:1")
    linking.servers["s:2"].stall()
    async with served(linking, 5) as (servers, _):
        assert servers.problems() == []
        assert linking.listened == ["s:3"]


async def test_what_every_sentinel_answered_is_told_when_none_names_a_master(autojump_clock: MockClock) -> None:
    linking = Watched()
    linking.crash("s:1")
    linking.servers["s:2"].reply("SENTINEL", null())
    linking.servers["s:3"].reply("SENTINEL", error("ERR broken"))
    async with served(linking, 0.1) as (servers, _):
        [problem] = servers.problems()
        assert problem.startswith("redis of service 'main' is ")
        assert "no Sentinel names the master of 'main': " in problem
        for reason in ("s:1: Connection refused", "s:2: it knows no service 'main'", "s:3: broken"):
            assert reason in problem
        with pytest.raises(BrokerUnavailable, match="no Sentinel names the master"):
            await servers.execute("k", "GET", "k")
        with pytest.raises(BrokerUnavailable, match="no Sentinel has named the master yet"):
            servers.feed_home("channel")


async def test_a_server_that_is_no_master_is_not_taken(autojump_clock: MockClock) -> None:
    linking = Watched()
    linking.set_role("a:1", "slave")
    linking.name_master("b:1", "s:2", "s:3")
    async with served(linking, 3) as (servers, services):
        assert servers.feed_home("channel") == "b:1"
        assert "a:1: the Sentinels named it, but it is no master" in services.failures["redis"]


async def test_a_switch_moves_the_link_and_is_told(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, services):
        changes: list[str] = []
        servers.on_change(lambda: changes.append(servers.feed_home("channel")))
        linking.tell_switch("other a 1 b 1")
        linking.tell_switch("main a 1 b one")
        linking.tell_switch("main a 1")
        await trio.sleep(0.1)
        assert not changes
        linking.name_master("b:1")
        linking.tell_switch("main a 1 b 1")
        await trio.sleep(0.001)
        assert changes == ["b:1"]
        await trio.sleep(1)
        await servers.execute("k", "SET", "k", "v")
        assert linking.servers["b:1"].strings == {b"k": b"v"}
        assert services.failures == {"redis": ["the Sentinels have made b:1 the master"]}
        assert changes == ["b:1"]
        with pytest.raises(BrokerUnavailable, match="a:1 is not the master any more"):
            servers.open_feed("a:1", ignore)


async def test_a_switch_nobody_heard_of_is_found_out_by_asking(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, _):
        linking.name_master("b:1")
        await trio.sleep(6)
        assert servers.feed_home("channel") == "b:1"
        assert servers.problems() == []


async def test_one_sentinel_with_a_view_of_its_own_changes_nothing(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, services):
        [listened] = linking.listened
        linking.name_master("b:1", listened)
        await trio.sleep(12)
        assert servers.feed_home("channel") == "a:1"
        assert not services.failures["redis"]
        assert services.failures["sentinel"] == ["it names b:1 the master of 'main', and most others a:1"]
        assert linking.listened != [listened]


async def test_the_watch_moves_on_when_its_sentinel_dies(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, _):
        [listened] = linking.listened
        linking.crash(listened)
        await trio.sleep(1)
        assert linking.listened not in ([], [listened])
        linking.name_master("b:1")
        linking.tell_switch("main a 1 b 1")
        await trio.sleep(1)
        assert servers.feed_home("channel") == "b:1"


async def test_a_feed_stays_with_its_master_and_ends_when_it_is_one_no_more(autojump_clock: MockClock) -> None:
    linking = Watched()
    async with served(linking) as (servers, services):
        feed = servers.open_feed("a:1", ignore)
        await services.start("feed", feed.run)
        linking.set_role("a:1", "slave")
        linking.crash("a:1")
        linking.servers["a:1"].refusal = None
        await trio.sleep(1)
        assert not feed.is_up
        assert "a:1: the Sentinels named it, but it is no master" in services.failures["feed"]


async def test_sentinels_have_credentials_of_their_own(autojump_clock: MockClock) -> None:
    linking = Watched()
    target = f"redis+sentinel://ann:data@{','.join(SENTINELS)}/main/2?sentinel_username=su&sentinel_password=sp"
    other = ScriptedLinking(target, [])
    other.servers = linking.servers
    async with other.running(), open_services() as services:
        servers = SentinelServers(other)
        await servers.start(services)
        await trio.sleep(1)
        assert servers.problems() == []
    assert logins(linking.servers["s:1"]) == {(b"su", b"sp")}
    assert logins(linking.servers["a:1"]) == {(b"ann", b"data")}
    assert linking.servers["a:1"].called("SELECT") == [[b"SELECT", b"2"]]
    assert not linking.servers["s:1"].called("SELECT")


def logins(server: ScriptedRedis) -> set[tuple[bytes, bytes]]:
    return {(command[3], command[4]) for command in server.called("HELLO")}


# --- real processes ---------------------------------------------------------------------------------------------------


async def test_a_killed_primary_is_followed_while_somebody_writes(tmp_path: Path) -> None:
    script = write_script(tmp_path, COUNT)
    with sentinel_set() as sentinels:
        async with open_servers(sentinels.url) as (servers, _), trio.open_nursery() as nursery:
            await until(lambda: not servers.problems())
            old, new = sentinels.primary, sentinels.replica
            homes = [servers.feed_home("channel")]
            servers.on_change(lambda: homes.append(servers.feed_home("channel")))
            written: list[int] = []

            async def write() -> None:
                while True:
                    try:
                        written.append((await servers.evaluate(script, ["c"], ["x"], replicas=0))[0])
                    except BrokerUnavailable:
                        await trio.sleep(0.02)

            nursery.start_soon(write)
            await until(lambda: len(written) > 20)
            previous = old.info("replication")["master_replid"]
            old.kill()
            await until(servers.problems)
            before = len(written)
            await until(lambda: len(written) > before + 20, 20)
            assert homes == [old.address, new.address]
            reply = await servers.evaluate(script, ["c"], ["x"])
            assert reply[2:] == [new.info("replication")["master_replid"].encode(), previous.encode()]
            old.start()  # it believes to be the primary, until a Sentinel tells it; nobody goes there
            await trio.sleep(0.5)
            assert (await servers.evaluate(script, ["c"], ["x"]))[2] == reply[2]
            nursery.cancel_scope.cancel()


async def test_a_failover_by_hand_and_a_dead_sentinel() -> None:
    with sentinel_set() as sentinels:
        async with connected_servers(sentinels.url) as servers:
            new = sentinels.replica
            watching = next(sentinel for sentinel in sentinels.sentinels if listeners(sentinel))
            watching.kill()
            others = [sentinel for sentinel in sentinels.sentinels if sentinel is not watching]
            await until(lambda: any(map(listeners, others)))
            others[0].cli("SENTINEL", "FAILOVER", SERVICE)
            await until(lambda: servers.feed_home("channel") == new.address, 20)
            await until(lambda: not servers.problems())
            assert await can_write(servers)
            assert new.cli("GET", "k") == "v"


def listeners(sentinel: RedisServer) -> int:
    return sum("name=n1 " in line and " sub=1 " in line for line in sentinel.cli("CLIENT", "LIST").splitlines())


async def can_write(servers: Servers) -> bool:
    return bool(await servers.execute("k", "SET", "k", "v") == b"OK")
