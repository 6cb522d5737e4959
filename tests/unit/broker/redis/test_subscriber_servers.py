"""The subscriber over real Redis: alone, behind Sentinels, as a Cluster; cut off, killed, stopped, resharded."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from redis import Redis

from notifyd.broker.redis.subscriber import ChannelSubscriber
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from tests.kit.redis_servers import Cluster, RedisServer, cluster, sentinel_set, standalone
from tests.kit.services import RunServices
from tests.kit.until import until
from tests.recorded_events import RecordedEvents
from tests.unit.broker.redis.open_servers import DEADLINE_S, open_servers

RESUBSCRIBED_S = 2.0
"""Row 15: how soon after a loss could be noticed everything is subscribed again."""


class Listening:
    """A subscriber, and what it told."""

    def __init__(self, servers: Servers, services: RunServices) -> None:
        self.servers = servers
        self.services = services
        self.messages: list[tuple[str, bytes]] = []
        self.restored: list[str] = []
        self.subscriber = ChannelSubscriber(
            servers,
            deadline_s=DEADLINE_S,
            probe_channel="probe",
            on_messages=self.messages.extend,
            on_restored=self.restored.extend,
            events=RecordedEvents(),
        )

    async def subscribe(self, channels: Sequence[str]) -> None:
        async with trio.open_nursery() as nursery:
            for channel in channels:
                nursery.start_soon(self.subscriber.subscribe, channel)

    async def publish(self, channel: str, payload: bytes = b"1") -> int:
        verb = "SPUBLISH" if self.servers.sharded else "PUBLISH"
        return int(await self.servers.execute(channel, verb, channel, payload))

    async def arrive_all(self, channels: Sequence[str]) -> None:
        """Publish on each channel and wait until all have arrived."""
        self.messages.clear()
        for channel in channels:
            assert await self.publish(channel) == 1
        await until(lambda: {channel for channel, _ in self.messages} >= {*channels})
        assert len(self.messages) == len(channels)

    async def restored_all(self, channels: Sequence[str], seconds: float = RESUBSCRIBED_S) -> None:
        await until(lambda: {*self.restored} >= {*channels}, seconds)
        assert all(map(self.subscriber.is_subscribed, channels))
        assert len(self.restored) == len({*self.restored})
        await until(lambda: not self.servers.problems())


@asynccontextmanager
async def listening_at(url: str) -> AsyncIterator[Listening]:
    async with open_servers(url) as (servers, services):
        listening = Listening(servers, services)
        await listening.subscriber.start(services)
        await until(lambda: not servers.problems())
        yield listening


def names(count: int) -> list[str]:
    """Channels as topics have them, each with a slot of its own."""
    return [f"channel:{{t{number}}}" for number in range(count)]


async def test_many_channels_come_back_after_their_connection_was_cut(redis_server: RedisServer) -> None:
    channels = names(1200)
    async with listening_at(redis_server.url) as listening:
        await listening.subscribe(channels)
        for _ in range(3):
            listening.restored.clear()
            assert redis_server.kill_clients("pubsub") == 1
            await listening.restored_all(channels)
        await listening.arrive_all(channels[::100])
        await listening.subscriber.unsubscribe(channels[0])
        await until(lambda: redis_server.cli("PUBSUB", "NUMSUB", channels[0]) == [channels[0], 0])


async def test_a_killed_server_that_starts_again_has_all_subscriptions_again() -> None:
    channels = names(10)
    with standalone() as server:
        async with listening_at(server.url) as listening:
            await listening.subscribe(channels)
            server.kill()
            await until(listening.subscriber.problems)
            with pytest.raises(BrokerUnavailable, match=r"no messages from 127.0.0.1:\d+: Connection refused"):
                await until_refused(listening)
            server.restart()
            await listening.restored_all([*channels, "new"])
            await listening.arrive_all(channels)


async def until_refused(listening: Listening) -> None:
    """Subscribe until the reason is that nobody listens there: before, it may be that the connection was reset."""
    while True:
        try:
            await listening.subscriber.subscribe("new")
        except BrokerUnavailable as failure:
            if "refused" in str(failure):
                raise
            await trio.sleep(0.01)


async def test_a_stopped_server_is_noticed_and_asked_again_when_it_goes_on() -> None:
    channels = names(10)
    with standalone() as server:
        async with listening_at(server.url) as listening:
            await listening.subscribe(channels)
            server.stop_process()
            with pytest.raises(BrokerUnavailable):
                await listening.subscriber.subscribe("new")
            await until(listening.subscriber.problems)
            server.continue_process()
            await listening.restored_all(channels)
            await listening.arrive_all(channels)


async def test_a_node_that_stood_still_until_redis_gave_it_up_is_back_soon() -> None:
    """Row 15 in short: while nobody reads here, Redis drops the feed for its full output buffer."""
    with standalone(client_output_buffer_limit="pubsub 256kb 0 0") as server:
        async with listening_at(server.url) as listening:
            await listening.subscribe(["a", "b"])
            with Redis(port=server.port) as redis:
                while redis.publish("a", b"x" * 100_000):  # the node's own loop stands still meanwhile
                    pass
            began_s = time.monotonic()
            await listening.restored_all(["a", "b"])
            assert time.monotonic() - began_s < RESUBSCRIBED_S
            await listening.arrive_all(["a", "b"])


async def test_channels_that_are_not_permitted_are_told_in_words() -> None:
    with standalone(users={"node": ">secret ~* +@all resetchannels &mine:* &probe"}) as server:
        async with listening_at(server.url.replace("redis://", "redis://node:secret@")) as listening:
            await listening.subscriber.subscribe("mine:1")
            with pytest.raises(BrokerUnavailable, match=r"refuses to subscribe: .*permissions") as caught:
                await listening.subscriber.subscribe("theirs:1")
            assert "secret" not in str(caught.value)
            assert listening.subscriber.problems() == [str(caught.value)]
            await listening.subscriber.unsubscribe("theirs:1")
            await until(lambda: not listening.subscriber.problems())
            await listening.arrive_all(["mine:1"])


async def test_in_a_cluster_each_channel_is_on_the_feed_of_its_shard(redis_cluster: Cluster) -> None:
    channels = names(300)
    async with listening_at(redis_cluster.url) as listening:
        assert listening.servers.sharded
        await listening.subscribe(channels)
        counts = [len(master.cli("PUBSUB", "SHARDCHANNELS", "channel:*")) for master in redis_cluster.masters]
        assert sum(counts) == 300
        assert min(counts) > 50
        await listening.arrive_all(channels[::10])
        assert listening.restored == []
        for master in redis_cluster.masters:
            master.kill_clients("pubsub")
        await listening.restored_all(channels)
        await listening.arrive_all(channels[::10])


@pytest.mark.guard(60)
async def test_channels_follow_their_slot_when_it_moves() -> None:
    with cluster() as three:
        moving, staying = "channel:{moves}", "channel:{stays}"
        slot = three.slot_of(moving)
        others = [master for master in three.masters if master is not three.owner(slot)]
        async with listening_at(three.url) as listening:
            await listening.subscribe([moving, staying, "another:{moves}"])
            for target in (*others, three.owner(slot)):
                listening.restored.clear()
                three.migrate_slot(slot, target)
                await listening.restored_all([moving, "another:{moves}"])
                await listening.arrive_all([moving, staying, "another:{moves}"])
                assert target.cli("PUBSUB", "SHARDNUMSUB", moving) == [moving, 1]
                assert staying not in listening.restored


@pytest.mark.guard(60)
async def test_after_a_failover_the_new_primary_has_all_subscriptions() -> None:
    channels = names(10)
    with sentinel_set() as sentinels:
        async with listening_at(sentinels.url) as listening:
            await listening.subscribe(channels)
            old = sentinels.primary
            old.kill()
            await listening.restored_all(channels, seconds=20)
            await listening.arrive_all(channels)
            await until(lambda: sentinels.primary is not old)  # the Sentinel that was asked may know before the others
            await until(lambda: not listening.subscriber.problems(), seconds=15)


@pytest.mark.guard(60)
async def test_when_a_master_of_a_cluster_dies_its_replica_gets_its_channels() -> None:
    channels = names(60)
    with cluster(replicas=1) as six:
        victim = six.masters[0]
        its = [channel for channel in channels if six.owner(six.slot_of(channel)) is victim]
        async with listening_at(six.url) as listening:
            await listening.subscribe(channels)
            victim.kill()
            await listening.restored_all(its, seconds=20)
            assert {*listening.restored} == {*its}
            await listening.arrive_all(channels)
            await until(lambda: not listening.subscriber.problems(), seconds=15)
