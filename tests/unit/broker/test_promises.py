"""Random lives of a broker, each answer judged by an oracle that remembers everything."""

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.base import Retention
from notifyd.broker.memory import MemoryBroker
from tests.unit.broker.conformance import Trial, open_trial
from tests.unit.broker.oracle import Oracle

TOPICS = ("a:b", "a:c", "x", "y:z")
MOMENT_S = 0.001


@dataclass(frozen=True)
class Publish:
    topic: str
    retention: tuple[int, float]
    key: str | None
    size: int


@dataclass(frozen=True)
class Read:
    topic: str
    since: str | int
    limit: int
    retention: tuple[int, float]


@dataclass(frozen=True)
class Wait:
    ttls: float


@dataclass(frozen=True)
class Subscribe:
    topic: str
    wanted: bool


@dataclass(frozen=True)
class CleanUp:
    pass


_topics = st.sampled_from(TOPICS)
# The time to live is given in units of the trial's own; a topic mostly keeps its retention, and sometimes changes it.
_retentions = st.sampled_from([(5, 1.0)] * 6 + [(1000, 1.0), (1, 1.0), (0, 1.0), (5, 3.0), (1000, 0.3)])
_steps = st.one_of(
    st.builds(Publish, _topics, _retentions, st.none() | st.sampled_from("kl"), st.integers(0, 300)),
    st.builds(Publish, _topics, _retentions, st.none(), st.just(0)),
    st.builds(
        Read, _topics, st.sampled_from(["earliest", "latest"]) | st.integers(0, 30), st.integers(1, 6), _retentions
    ),
    st.builds(Wait, st.sampled_from([0.0, 0.2, 0.5, 1.1, 4.0])),
    st.builds(Subscribe, _topics, st.booleans()),
    st.just(CleanUp()),
)
_lives = st.lists(_steps, min_size=10, max_size=80)


class Life:
    """Plays steps to a broker and its oracle."""

    def __init__(self, trial: Trial, *, exact: bool) -> None:
        self._trial = trial
        self._oracle = Oracle(key_ttl_s=trial.key_ttl_s, exact=exact)
        self._count = 0

    async def play(self, step: Any) -> None:
        match step:
            case Publish():
                await self._publish(step)
            case Read():
                await self._read(step)
            case Wait(ttls):
                await self._advance(ttls * self._trial.ttl_s)
            case Subscribe(topic, wanted=True):
                self._oracle.subscribed.add(topic)
                await self._trial.subscribe(topic)
            case Subscribe(topic):
                self._oracle.subscribed.discard(topic)
                await self._trial.broker.unsubscribe(topic)
            case CleanUp():
                self._trial.clean_up()
                for known in self._oracle.topics.values():
                    known.trim(self._oracle.now_s)
        # So that no two steps happen at the same instant: which of equally old messages goes first is open.
        await self._advance(MOMENT_S)
        await self._trial.delivered_all()
        self._oracle.delivered(self._trial.delivered)

    async def _publish(self, step: Publish) -> None:
        self._count += 1
        value = [self._count, "x" * step.size]
        retention = self._retention(step.retention)
        answer = await self._trial.broker.publish(step.topic, value, retention, key=step.key)
        self._oracle.published(step.topic, value, retention, step.key, answer)

    async def _read(self, step: Read) -> None:
        since: Any = step.since
        if isinstance(since, int):
            since = self._oracle.known_position(step.topic, since)
        retention = self._retention(step.retention)
        page = await self._trial.broker.history(step.topic, since, step.limit, retention)
        self._oracle.read(step.topic, since, step.limit, retention, page)

    async def _advance(self, seconds: float) -> None:
        self._oracle.now_s += seconds
        await self._trial.advance(seconds)

    def _retention(self, wanted: tuple[int, float]) -> Retention:
        history, ttls = wanted
        return Retention(history, ttls * self._trial.ttl_s)


@given(kind=st.just("memory"), steps=_lives)  # Redis, whose time is real, has test_history_promises.py
async def test_with_room_everything_is_kept_as_long_as_promised(kind: str, steps: list[Any]) -> None:
    async with open_trial(kind) as trial:
        life = Life(trial, exact=True)
        for step in steps:
            await life.play(step)


@given(steps=_lives, memory_bytes=st.sampled_from([0, 200, 2_500, 6_000]), idle_topics=st.integers(0, 3))
async def test_without_room_a_memory_broker_stays_honest(steps: list[Any], memory_bytes: int, idle_topics: int) -> None:
    async with open_trial("memory", memory_bytes=memory_bytes, idle_topics=idle_topics) as trial:
        life, broker = Life(trial, exact=False), trial.broker
        assert isinstance(broker, MemoryBroker)
        for step in steps:
            await life.play(step)
            assert 0 <= broker.kept_bytes <= memory_bytes
            assert len(await broker.topics()) <= len(TOPICS)
        await assert_everything_ends(trial, broker)


async def assert_everything_ends(trial: Trial, broker: MemoryBroker) -> None:
    """After the longest time to live, with no subscriber left, no more than the idle positions remain."""
    for topic in TOPICS:
        await broker.unsubscribe(topic)
    await trial.advance(max(trial.ttl_s * 3, trial.key_ttl_s))
    trial.clean_up()
    assert broker.kept_bytes == 0
    assert not len(broker._keys)
    assert not broker._histories._holds
    assert broker._histories._histories.keys() == broker._histories._idle.keys()
    assert len(broker._histories._idle) <= broker._histories._idle_limit
