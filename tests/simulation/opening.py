"""A broker over a simulated Redis, for tests that know nothing of clusters: the conformance suite runs over it too.

    async with open_simulated(events) as simulated:
        broker = RedisBroker(receiver, settings, node="trial", clock=clock, events=events, servers=simulated.servers)
        await broker.start(services)

Redis's time of day is the real one, unless another is given.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import trio

from notifyd.broker.redis.link import Dial
from notifyd.broker.redis.target import Endpoint, parse_target
from notifyd.broker.redis.topology.base import Servers
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.standalone import StandaloneServers
from notifyd.events import Events
from tests.simulation.network import Network, RedisStream
from tests.simulation.node import REDIS
from tests.simulation.sim_redis import SimRedis


class SimulatedLinking(Linking):
    """Dials over a simulated network."""

    network: Network

    def dial(self, endpoint: Endpoint) -> Dial:
        async def connect() -> trio.abc.Stream:
            return RedisStream(await self.network.dial("node", endpoint.host))

        return connect


@dataclass
class Simulated:
    """A simulated Redis, the network to it, and the way there as a broker takes it."""

    redis: SimRedis
    network: Network
    servers: Servers


@asynccontextmanager
async def open_simulated(
    events: Events, *, deadline_s: float = 5.0, seed: int = 0, unix_s: Callable[[], float] = time.time
) -> AsyncIterator[Simulated]:
    """Run a simulated Redis for the length of the block."""
    network = Network(seed)
    redis = SimRedis(now_us=lambda: int(unix_s() * 1e6), random=Random(seed))
    linking = SimulatedLinking(parse_target(f"redis://{REDIS}"), deadline_s=deadline_s, name="trial", events=events)
    linking.network = network
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        await nursery.start(redis.run)
        network.listen(REDIS, redis.accept)
        yield Simulated(redis, network, StandaloneServers(linking))
        nursery.cancel_scope.cancel()
