"""The memory broker's bounds and its sweep: what other brokers keep in other ways."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from notifyd.broker.base import Retention, SessionRecord
from notifyd.broker.memory import MemoryBroker
from notifyd.broker.memory.history import HISTORY_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES
from notifyd.broker.memory.keys import KEY_TTL_S
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable
from notifyd.model import Notification, SessionId
from protocol.messages import Member
from protocol.position import Position
from tests.unit.broker.conformance import Received, Trial, data_of, open_trial

TOPIC_BYTES = HISTORY_OVERHEAD_BYTES + MESSAGE_OVERHEAD_BYTES
"""A topic that keeps one message costs this and its packed bytes, of which the tests here use few."""


@pytest.fixture
def broker_kind() -> str:
    """The tests of this file are for the embedded broker alone."""
    return "memory"


async def publish_in_turn(trial: Trial, topics: Sequence[str], value: Any = 0) -> list[Position]:
    """Publish to one topic after the other, a second between."""
    positions = []
    for topic in topics:
        positions += await trial.publish(topic, value)
        await trial.advance(1.0)
    return positions


def saved(session: str, *topics: str) -> SessionRecord:
    return SessionRecord(SessionId(session), "ann", {topic: Position("x", 1) for topic in topics})


# --- the budget of bytes ---------------------------------------------------------------------------------------------


@pytest.fixture
async def narrow() -> AsyncIterator[Trial]:
    """Room for the small messages of three topics, but not of four."""
    async with open_trial("memory", memory_bytes=4 * TOPIC_BYTES) as trial:
        yield trial


async def test_above_the_budget_the_oldest_message_of_all_topics_goes(narrow: Trial) -> None:
    positions = await publish_in_turn(narrow, ["t:1", "t:2", "t:3", "t:4"])
    assert [data_of(await narrow.read(f"t:{n}")) for n in (1, 2, 3, 4)] == [[], [0], [0], [0]]
    assert (await narrow.read("t:1", positions[0])).continuous
    assert not (await narrow.read("t:1", "earliest")).continuous


async def test_a_topic_refreshed_by_new_messages_loses_only_its_old_ones(narrow: Trial) -> None:
    positions = await publish_in_turn(narrow, ["t:1", "t:2", "t:3", "t:1", "t:4"])
    assert [len(data_of(await narrow.read(f"t:{n}"))) for n in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert (await narrow.read("t:1", positions[0])).continuous
    assert not (await narrow.read("t:1", Position(positions[0].epoch, 0))).continuous


async def test_a_message_larger_than_the_budget_is_delivered_and_not_kept(narrow: Trial) -> None:
    await narrow.subscribe("t:1")
    before = (await narrow.read("t:1", "latest")).top
    [position] = await narrow.publish("t:1", "x" * 5 * TOPIC_BYTES)
    assert len(await narrow.received()) == 1
    assert not (await narrow.read("t:1", before)).continuous
    assert (await narrow.read("t:1", position)).continuous
    assert isinstance(narrow.broker, MemoryBroker)
    assert narrow.broker.kept_bytes == 0


async def test_the_size_of_data_counts(trial: Trial) -> None:
    assert isinstance(trial.broker, MemoryBroker)
    await trial.publish("t:1", {"text": "x" * 10_000})
    assert 10_000 + TOPIC_BYTES <= trial.broker.kept_bytes < 10_100 + TOPIC_BYTES
    await trial.broker.publish("t:1", None, Retention(0, 0.0))
    assert trial.broker.kept_bytes == 0


async def test_what_a_message_displaces_no_longer_counts(trial: Trial) -> None:
    assert isinstance(trial.broker, MemoryBroker)
    sizes = set()
    for _ in range(20):
        await trial.publish("t:1", "same size", history=3)
        sizes.add(trial.broker.kept_bytes)
    assert len(sizes) == 3
    await trial.advance(trial.ttl_s)
    await trial.publish("t:1", "same size", history=3)
    assert trial.broker.kept_bytes == min(sizes)


async def test_topics_that_lost_their_messages_do_not_pile_up() -> None:
    async with open_trial("memory", idle_topics=10) as trial:
        assert isinstance(trial.broker, MemoryBroker)
        by_age = trial.broker._histories._by_age
        for number in range(10_000):
            await trial.broker.publish(f"t:{number}", 0, Retention(1, 1.0))
            await trial.advance(0.1)
            if number % 100 == 0:
                trial.clean_up()
        assert len(by_age) <= 2048
        assert len(await trial.broker.topics()) <= 10 + 111


async def test_a_topic_that_comes_and_goes_stands_in_line_once(trial: Trial) -> None:
    assert isinstance(trial.broker, MemoryBroker)
    for _ in range(100):
        await trial.publish("t:1", 0)
        await trial.advance(trial.ttl_s)
        trial.clean_up()
    assert len(trial.broker._histories._by_age) == 1


async def test_leaving_out_topics_without_messages_keeps_the_others_in_line() -> None:
    forever = Retention(1, 1e9)
    async with open_trial("memory", memory_bytes=3000 * TOPIC_BYTES) as trial:
        for number in range(3000):
            await trial.broker.publish(f"t:{number}", 0, forever if number % 2 else Retention(1, 0.5))
            await trial.advance(0.01)
            if number % 100 == 0:
                trial.clean_up()
        await trial.advance(1.0)
        trial.clean_up()
        for topic in ("t:0", "t:1001"):
            await trial.broker.publish(topic, "newest", forever)
            await trial.advance(1.0)
        await trial.broker.publish("t:big", "x" * 2900 * TOPIC_BYTES, forever)
        kept = [n for n in range(3000) if data_of(await trial.broker.history(f"t:{n}", "earliest", 1, forever))]
        assert {0, 1001} < set(kept)
        odd = [n for n in kept if n not in {0, 1001}]
        assert odd == list(range(odd[0], 3000, 2))
        await trial.advance(1.0)
        await trial.broker.publish("t:big", "x" * 2998 * TOPIC_BYTES, forever)
        assert [n for n in range(3000) if data_of(await trial.broker.history(f"t:{n}", "earliest", 1, forever))] == []


# --- topics remembered for their position alone ----------------------------------------------------------------------


async def test_the_least_recently_used_idle_topic_is_forgotten_and_begins_a_new_epoch() -> None:
    async with open_trial("memory", idle_topics=2) as trial:
        tops = {topic: (await trial.read(topic, "latest")).top for topic in ("t:1", "t:2")}
        await trial.read("t:1", "latest")
        await trial.read("t:3", "latest")
        assert set(await trial.broker.topics()) == {"t:1", "t:3"}
        assert (await trial.read("t:1", tops["t:1"])).continuous
        page = await trial.read("t:2", tops["t:2"])
        assert not page.continuous
        assert page.top != tops["t:2"]


async def test_topics_with_messages_or_subscribers_are_not_forgotten() -> None:
    async with open_trial("memory", idle_topics=0) as trial:
        await trial.subscribe("t:1")
        [first] = await trial.publish("t:1", 1)
        [second] = await trial.publish("t:2", 1)
        assert (await trial.read("t:2", second)).continuous
        await trial.advance(trial.ttl_s * 2)
        trial.clean_up()
        assert set(await trial.broker.topics()) == {"t:1"}
        assert (await trial.read("t:1", first)).continuous
        await trial.broker.unsubscribe("t:1")
        assert await trial.broker.topics() == {}


async def test_a_topic_is_idle_no_longer_once_it_is_used() -> None:
    async with open_trial("memory", idle_topics=2) as trial:
        for topic in ("t:1", "t:2"):
            await trial.read(topic, "latest")
        await trial.publish("t:1", 1)
        await trial.subscribe("t:2")
        for topic in ("t:3", "t:4", "t:5"):
            await trial.read(topic, "latest")
        topics = await trial.broker.topics()
        assert topics.keys() == {"t:1", "t:2", "t:4", "t:5"}
        assert topics["t:2"] is not None


async def test_a_topic_whose_epoch_was_ended_is_not_idle_either() -> None:
    async with open_trial("memory", idle_topics=2) as trial:
        await trial.read("t:1", "latest")
        await trial.broker.publish("t:1", 1, Retention(0, 0.0))
        for topic in ("t:2", "t:3", "t:4"):
            await trial.read(topic, "latest")
        assert set(await trial.broker.topics()) == {"t:3", "t:4"}


async def test_a_publish_that_leaves_no_message_leaves_an_idle_topic() -> None:
    async with open_trial("memory", idle_topics=0) as trial:
        await trial.publish("t:1", 1)
        await trial.broker.publish("t:1", 2, Retention(10, 0.0))
        assert await trial.broker.topics() == {}


async def test_topics_that_a_session_may_resume_are_not_forgotten() -> None:
    async with open_trial("memory", idle_topics=0) as trial:
        await trial.broker.save_session(saved("s1", "t:1"), 10.0)
        await trial.broker.save_session(saved("s2", "t:1"), 20.0)
        top = (await trial.read("t:1", "latest")).top
        assert await trial.broker.load_session(SessionId("s2"), "ann")
        assert (await trial.read("t:1", top)).continuous
        await trial.advance(11.0)
        trial.clean_up()
        assert await trial.broker.topics() == {}


# --- keys and sessions -----------------------------------------------------------------------------------------------


async def test_at_the_bound_of_keys_a_new_one_is_refused_and_nothing_happens() -> None:
    async with open_trial("memory", key_limit=2) as trial:
        await trial.subscribe("t:1")
        await trial.broker.publish("t:1", 1, trial.keep(), key="k1")
        await trial.advance(100.0)
        await trial.broker.publish("t:1", 2, trial.keep(), key="k2")
        with pytest.raises(BrokerUnavailable, match="2 idempotency keys") as refusal:
            await trial.broker.publish("t:1", 3, trial.keep(), key="k3")
        assert refusal.value.retry_after_s == pytest.approx(KEY_TTL_S - 100.0)
        assert (await trial.broker.publish("t:1", 1, trial.keep(), key="k1")).repeated
        await trial.publish("t:1", "no key")
        assert await trial.received() == [1, 2, "no key"]
        await trial.advance(KEY_TTL_S - 99.0)
        assert not (await trial.broker.publish("t:1", 3, trial.keep(), key="k3")).repeated


async def test_keys_are_forgotten_by_the_thousand_without_a_sweep() -> None:
    async with open_trial("memory", key_limit=2500) as trial:
        for number in range(2500):
            await trial.broker.publish("t:1", 0, Retention(0, 0.0), key=str(number))
        await trial.advance(KEY_TTL_S)
        assert not (await trial.broker.publish("t:1", 0, Retention(0, 0.0), key="2499")).repeated
        assert isinstance(trial.broker, MemoryBroker)
        assert len(trial.broker._keys) == 1


async def test_beyond_the_limit_the_session_saved_first_goes() -> None:
    async with open_trial("memory", session_limit=2) as trial:
        for session in ("s1", "s2", "s1", "s3"):
            await trial.broker.save_session(saved(session, "t:1"), 10.0)
        assert await trial.broker.load_session(SessionId("s2"), "ann") is None
        assert await trial.broker.load_session(SessionId("s1"), "ann")
        assert await trial.broker.load_session(SessionId("s3"), "ann")
        assert isinstance(trial.broker, MemoryBroker)
        assert not trial.broker._histories._holds


async def test_what_is_held_twice_by_one_is_released_at_once(trial: Trial) -> None:
    assert isinstance(trial.broker, MemoryBroker)
    for _ in range(2):
        await trial.subscribe("t:1")
        await trial.broker.save_session(saved("s1", "t:1"), 10.0)
    await trial.broker.unsubscribe("t:1")
    assert await trial.broker.load_session(SessionId("s1"), "ann")
    assert not trial.broker._histories._holds


async def test_presence_leaves_nothing_behind(trial: Trial) -> None:
    member = Member(user="ann", session="s1", since=1)
    await trial.broker.join("t:1", member, announce=False)
    await trial.broker.presence("t:2")
    await trial.broker.leave("t:1", member, announce=False)
    assert isinstance(trial.broker, MemoryBroker)
    assert len(trial.broker._presence) == 0


# --- one step, and the sweep -----------------------------------------------------------------------------------------


async def test_a_publish_is_one_step() -> None:
    seen: list[Any] = []

    class Looking(Received):
        def deliver(self, batch: Sequence[Notification]) -> None:
            seen.append((batch[0].position, broker._histories.positions().get("t:1")))

    broker = MemoryBroker(Looking(), clock=Clock())
    await broker.subscribe("t:1", Retention(10, 60.0))
    with trio.testing.assert_no_checkpoints():
        answer = await broker.publish("t:1", 1, Retention(10, 60.0), key="k")
    assert seen == [(answer.position, answer.position)]


async def test_a_publish_that_cannot_be_packed_has_not_happened(trial: Trial) -> None:
    await trial.subscribe("t:1")
    with pytest.raises(TypeError):
        await trial.broker.publish("t:1", object(), trial.keep(), key="k")
    assert await trial.received() == []
    assert await trial.broker.topics() == {"t:1": None}
    assert not (await trial.broker.publish("t:1", 1, trial.keep(), key="k")).repeated


async def test_the_sweep_gives_back_everything_that_expired(autojump_clock: trio.testing.MockClock) -> None:
    broker = MemoryBroker(Received(), clock=Clock(), idle_topics=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        for number in range(2500):
            await broker.publish(f"t:{number}", 0, Retention(10, 5.0), key="k")
            await broker.save_session(saved(f"s{number}", "t:1"), 5.0)
        await trio.sleep(KEY_TTL_S - 1.0)
        assert (broker.kept_bytes, len(broker._sessions), len(broker._keys)) == (0, 0, 2500)
        assert await broker.topics() == {}
        await trio.sleep(3.0)
        assert len(broker._keys) == 0
        nursery.cancel_scope.cancel()


async def test_the_sweep_lets_others_run_and_bears_what_they_do(trial: Trial) -> None:
    broker = trial.broker
    assert isinstance(broker, MemoryBroker)
    for number in range(2500):
        await broker.publish(f"t:{number}", 0, trial.keep(), key="k")
        await broker.save_session(saved(f"s{number}"), 5.0)
    await trial.advance(KEY_TTL_S)
    slices = 0
    for _ in broker._sweep(trial.now_s()):
        slices += 1
        await broker.publish("t:2499", 1, Retention(0, 0.0))
        if slices == 5:
            await broker.save_session(saved("s2498"), 5.0)
    assert slices == 2 + 2 + 2
    assert await broker.load_session(SessionId("s2498"), "ann")
    assert (broker.kept_bytes, len(broker._sessions), len(broker._keys)) == (0, 0, 0)
