"""Random lives of a history in a real Redis, each answer judged by the oracle that judges the memory broker.

Scripts are told the time that a step says has passed; nothing else is played.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifyd.broker.base import Retention
from notifyd.broker.redis.envelope import read_message
from notifyd.broker.redis.history import RedisHistory
from notifyd.broker.redis.keys import Names
from notifyd.model import Notification
from tests.kit.lua_server import Feed, LuaServer, lua_server
from tests.kit.redis_process import RedisServer
from tests.unit.broker.oracle import Oracle

TOPICS = ("a:b", "a:{c}", "x}", "y:z")
TTL_S = 600.0
"""Much longer than an example takes: the time that passes by itself decides nothing."""

MOMENT_S = 0.5
NAMES = Names("life")


@dataclass(frozen=True)
class Publish:
    topic: str
    retention: tuple[int, float]
    key: str | None


@dataclass(frozen=True)
class Read:
    topic: str
    since: str | int
    limit: int
    retention: tuple[int, float]


@dataclass(frozen=True)
class Wait:
    ttls: float


_topics = st.sampled_from(TOPICS)
_retentions = st.sampled_from([(5, 1.0)] * 6 + [(1000, 1.0), (1, 1.0), (0, 1.0), (5, 3.0), (1000, 0.3)])
_kept = st.sampled_from([(5, 1.0)] * 6 + [(1000, 1.0), (1, 1.0), (5, 3.0), (1000, 0.3)])
_since = st.sampled_from(["earliest", "latest"]) | st.integers(0, 30)
_steps = st.one_of(
    st.builds(Publish, _topics, _retentions, st.none() | st.sampled_from("kl")),
    st.builds(Publish, _topics, _retentions, st.none()),
    st.builds(Read, _topics, _since, st.integers(1, 6), _kept),
    st.builds(Wait, st.sampled_from([0.0, 0.2, 0.5, 1.1, 4.0])),
)


@dataclass
class Life:
    """Plays steps to a history and its oracle."""

    server: LuaServer
    history: RedisHistory
    oracle: Oracle = field(default_factory=lambda: Oracle(key_ttl_s=inf, exact=True))
    count: int = 0
    deliveries: list[Notification] = field(default_factory=list)

    async def play(self, step: Any) -> None:
        match step:
            case Publish():
                await self._publish(step)
            case Read():
                await self._read(step)
            case Wait(ttls):
                self._later(ttls * TTL_S)
        self._later(MOMENT_S)

    async def _publish(self, step: Publish) -> None:
        self.count += 1
        history, ttls = step.retention
        retention = Retention(history, ttls * TTL_S)
        answer = await self.history.publish(
            step.topic, self.count, retention, key=step.key, sender=None, origin=None, sequence=self.count
        )
        self.oracle.published(step.topic, self.count, retention, step.key, answer)

    async def _read(self, step: Read) -> None:
        since: Any = step.since
        if isinstance(since, int):
            since = self.oracle.known_position(step.topic, since)
        history, ttls = step.retention
        retention = Retention(history, ttls * TTL_S)
        page = await self.history.read(step.topic, since, step.limit, retention)
        self.oracle.read(step.topic, since, step.limit, retention, page)

    def _later(self, seconds: float) -> None:
        self.oracle.now_s += seconds
        self.server.later(seconds)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(_steps, min_size=10, max_size=80))
async def test_everything_is_kept_as_long_as_promised(redis_server: RedisServer, steps: list[Any]) -> None:
    with lua_server(redis_server.port) as server:
        feed = Feed(server.client, NAMES.channel("*"))
        life = Life(server, RedisHistory(server, NAMES, "n1"))
        life.oracle.subscribed.update(TOPICS)
        for step in steps:
            await life.play(step)
        arrived = [read_message(NAMES.topic_of_channel(channel), payload) for channel, payload in feed.take()]
        life.oracle.delivered([each.notification for each in arrived])
        assert [each.sequence for each in arrived] == sorted(each.sequence for each in arrived)


async def test_what_is_too_old_is_found_wherever_it_ends(redis_server: RedisServer) -> None:
    """The search in lua/topic.lua, at every place at which the old ones may end."""
    keep = Retention(1000, 60.0)
    with lua_server(redis_server.port) as server:
        history = RedisHistory(server, NAMES, "n1")
        for size in range(1, 20):
            for taken in range(1, size + 1):
                topic = f"size:{size}:{taken}"
                for number in range(size):
                    await history.publish(topic, number, keep, key=None, sender=None, origin=None, sequence=number)
                    server.later(1)
                server.later(60 - size - 0.5)  # the first is half a second from its end
                for gone in range(0, size + taken, taken):
                    page = await history.read(topic, "earliest", 1000, keep)
                    assert [message.data for message in page.messages] == list(range(gone, size))
                    server.later(taken)
