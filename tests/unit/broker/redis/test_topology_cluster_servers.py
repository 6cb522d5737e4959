"""A Cluster of real servers: what is asked while slots move and masters die."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_servers import Cluster, cluster
from tests.kit.until import until
from tests.unit.broker.redis.lua_scripts import COUNT, write_script
from tests.unit.broker.redis.open_servers import connected_servers, open_servers

BOTH = "redis.call('INCR', KEYS[1]); return {redis.call('INCR', KEYS[2]), ARGV[#ARGV - 2], ARGV[#ARGV - 1]}"


class Writer:
    """Evaluates a script again and again; what came of it."""

    def __init__(self, servers: Servers, script: Script, keys: list[str]) -> None:
        self.answers: list[list[Any]] = []
        self.failures: list[str] = []
        self._servers = servers
        self._script = script
        self._keys = keys

    async def run(self) -> None:
        while True:
            try:
                self.answers.append(await self._servers.evaluate(self._script, self._keys, ["x"]))
            except BrokerUnavailable as error:
                self.failures.append(str(error))
                await trio.sleep(0.02)

    async def has_written(self, more: int, seconds: float = 20) -> None:
        """Wait until so many more have been answered."""
        enough = len(self.answers) + more
        await until(lambda: len(self.answers) >= enough, seconds)


@asynccontextmanager
async def writing(servers: Servers, script: Script, keys: list[str], tasks: int = 1) -> AsyncIterator[Writer]:
    writer = Writer(servers, script, keys)
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(writer.run)
        yield writer
        nursery.cancel_scope.cancel()


async def test_keys_scripts_scans_and_channels_of_shards(redis_cluster: Cluster, tmp_path: Path) -> None:
    script = write_script(tmp_path, COUNT)
    keys = [f"{{topic{number}}}:count" for number in range(30)]
    pushes: list[list[Any]] = []
    async with open_servers(redis_cluster.masters[1].url.replace("redis://", "redis+cluster://")) as (
        servers,
        services,
    ):
        await until(lambda: not servers.problems())
        assert servers.sharded
        assert {servers.feed_home(key) for key in keys} == {master.address for master in redis_cluster.masters}
        for master in (None, *redis_cluster.masters):  # known to none, then forgotten by one after the other
            if master is not None:
                master.cli("SCRIPT", "FLUSH")
            async with trio.open_nursery() as nursery:
                for key in keys:
                    nursery.start_soon(servers.evaluate, script, [key], ["x"])
        for key in keys:
            owner = redis_cluster.owner(redis_cluster.slot_of(key))
            assert await servers.evaluate(script, [key], ["x"]) == [
                5,
                b"x",
                owner.info("replication")["master_replid"].encode(),
                b"",
            ]
        assert sorted(await servers.scan("{topic*")) == sorted(keys)
        with pytest.raises(BrokerUnavailable, match=r"refused: .*same slot"):
            await servers.evaluate(script, ["a", "b"], [])
        feed = servers.open_feed(servers.feed_home(keys[0]), pushes.extend)
        await services.start("feed", feed.run)
        await feed.subscribe("SSUBSCRIBE", [keys[0]])
        assert await servers.execute(keys[0], "SPUBLISH", keys[0], "m") == 1
        await until(lambda: [b"smessage", keys[0].encode(), b"m"] in pushes)


async def test_a_slot_moves_under_load_and_a_master_dies_and_comes_back(tmp_path: Path) -> None:
    script = write_script(tmp_path, BOTH)
    keys = ["{topic}:a", "{topic}:b"]
    with cluster(appendfsync="always") as three:  # else a kill may take what was acknowledged in the last two seconds
        async with connected_servers(three.url) as servers:
            slot = three.slot_of("topic")
            source = three.owner(slot)
            target = next(master for master in three.masters if master is not source)
            for number in range(50):
                await servers.execute("topic", "SET", f"{{topic}}:{number}", "v")
            changes: list[str] = []
            servers.on_change(lambda: changes.append(servers.feed_home("topic")))
            async with writing(servers, script, keys, tasks=8) as writer:
                await writer.has_written(20)
                three.begin_migration(slot, target)
                await writer.has_written(20)
                while three.move_keys(slot, target, 10):
                    await writer.has_written(10)
                three.finish_migration(slot, target)
                await writer.has_written(50)
                assert writer.failures == []
                assert changes == [target.address]
                assert writer.answers[-1][1] == target.info("replication")["master_replid"].encode()
            counted = int(await servers.execute("topic", "GET", keys[0]))
            assert 0 <= counted - len(writer.answers) <= 8  # those that were cancelled may have been counted
            assert sorted(answer[0] for answer in writer.answers) == sorted({answer[0] for answer in writer.answers})

            target.kill()
            await until(lambda: any(f"redis at {target.address} is" in problem for problem in servers.problems()))
            with pytest.raises(BrokerUnavailable, match=f"redis at {target.address}"):
                await servers.execute("topic", "GET", keys[0])
            target.start()
            await until(lambda: not servers.problems(), 20)
            assert int(await servers.execute("topic", "GET", keys[0])) == counted


async def test_a_master_dies_and_its_replica_takes_over_under_load(tmp_path: Path) -> None:
    script = write_script(tmp_path, COUNT)
    with cluster(replicas=1) as six:
        async with connected_servers(six.url) as servers, writing(servers, script, ["topic"]) as writer:
            await writer.has_written(20)
            old = six.owner(six.slot_of("topic"))
            previous = old.info("replication")["master_replid"].encode()
            old.kill()
            await until(servers.problems)
            began_s = trio.current_time()
            await writer.has_written(20)
            assert trio.current_time() - began_s < 10
            await until(lambda: not servers.problems())
            home = servers.feed_home("topic")
            assert home in {replica.address for replica in six.replicas}
            assert writer.answers[-1][3] == previous  # it tells whose writes it continues
            old.start()
            await writer.has_written(20)
            await until(lambda: old.info("replication")["role"] == "slave")
            await writer.has_written(20)
            assert servers.feed_home("topic") == home
            assert not servers.problems()
