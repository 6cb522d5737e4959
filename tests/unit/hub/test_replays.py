"""A crowd that missed the same reads it once, and nobody gets less by it than by a read of its own."""

import trio
from trio.testing import MockClock

from notifyd.broker.base import Retention
from notifyd.hub.replays import KEPT_S, PAGE_BYTES, PAGES_KEPT
from protocol.framing import Form
from protocol.position import Position
from tests.kit.hub_kit import HubKit, Listening, open_hub
from tests.kit.memory_node import policy

TOPIC = "a:b"


async def position(hub_kit: HubKit, offset: int) -> Position:
    return Position((await hub_kit.hub.history(TOPIC, "latest", 1)).top.epoch, offset)


def reads(hub_kit: HubKit) -> int:
    """How often the broker was asked for a history since the last call."""
    count = sum(name == "history" for name, _ in hub_kit.broker.calls)
    hub_kit.broker.calls.clear()
    return count


async def crowd(hub_kit: HubKit, since: Position | str, count: int = 5) -> list[Listening]:
    """Let so many subscribe from here on, one after the other."""
    come = [hub_kit.subscriber(form=Form(number % len(Form))) for number in range(count)]
    for one in come:
        await one.subscribe(TOPIC, since)  # type: ignore[arg-type]
    return come


async def test_a_crowd_reads_what_it_missed_once(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 5)
        since = await position(hub_kit, 2)
        reads(hub_kit)
        come = await crowd(hub_kit, since, 10)
        assert [one.told(TOPIC) for one in come] == [[3, 4, 5]] * 10
        assert reads(hub_kit) == 2  # the first was alone: there was no crowd yet
        await hub_kit.publish(TOPIC)
        assert [one.told(TOPIC) for one in come] == [[3, 4, 5, 6]] * 10
        assert hub_kit.events.counted("messages_replayed") == 30


async def test_one_of_them_gets_the_very_same_objects(autojump_clock: MockClock) -> None:
    """Written down once an encoding: that is what it is for."""
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 0)
        await crowd(hub_kit, since)
        first, second = [await hub_kit.hub.subscribe(hub_kit.subscriber().subscriber, TOPIC, since) for _ in range(2)]
        assert first._replay.deliveries[0] is second._replay.deliveries[0]


async def test_what_was_delivered_since_is_read_anew(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 1)
        await crowd(hub_kit, since)
        await hub_kit.publish(TOPIC)
        assert [one.told(TOPIC) for one in await crowd(hub_kit, since)] == [[2, 3, 4]] * 5


async def test_what_was_published_while_nobody_was_there_is_read_anew(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 1)
        for one in await crowd(hub_kit, since):
            await one.leave()
        await hub_kit.publish(TOPIC)
        assert [one.told(TOPIC) for one in await crowd(hub_kit, since)] == [[2, 3, 4]] * 5


async def test_it_is_not_given_for_longer_than_a_moment(autojump_clock: MockClock) -> None:
    async with open_hub(policy(TOPIC, ttl_s=10)) as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 1)
        await crowd(hub_kit, since)
        reads(hub_kit)
        await trio.sleep(KEPT_S)
        await crowd(hub_kit, since, 1)
        assert reads(hub_kit) == 1


async def test_another_policy_another_page(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 1)
        await crowd(hub_kit, since)
        hub_kit.hub.registry.topics[TOPIC].policy = policy(TOPIC, history=1)
        one = hub_kit.subscriber()
        assert (await one.subscribe(TOPIC, since)).standing.recovered is False


async def test_a_message_without_a_position_ends_what_was_proved(autojump_clock: MockClock) -> None:
    """Another node may have other settings, by which the topic keeps no history: its messages end the epoch."""
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 3)
        since = await position(hub_kit, 1)
        await crowd(hub_kit, since)
        await hub_kit.broker.publish(TOPIC, "x", Retention(0, 1.0))
        one = hub_kit.subscriber()
        assert (await one.subscribe(TOPIC, since)).standing.recovered is False


async def test_large_pages_and_many_pages_are_not_kept(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        await hub_kit.publish(TOPIC, 2, PAGE_BYTES)
        await crowd(hub_kit, "earliest")
        assert len(hub_kit.hub.recovery.replays) == 0
        await hub_kit.publish(TOPIC, 2 * PAGES_KEPT)
        for offset in range(3, 2 * PAGES_KEPT):
            await crowd(hub_kit, await position(hub_kit, offset), 2)
        assert len(hub_kit.hub.recovery.replays) == PAGES_KEPT
        await trio.sleep(KEPT_S)
        await hub_kit.publish(TOPIC)
        assert len(hub_kit.hub.recovery.replays) == 0


async def test_the_newest_position_is_asked_of_the_broker_each_time(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        hub_kit.broker.hold_deliveries()
        await crowd(hub_kit, "latest")
        await hub_kit.publish(TOPIC)
        newest = await hub_kit.hub.subscribe(hub_kit.subscriber().subscriber, TOPIC, "latest")
        assert newest.standing.position is not None
        assert newest.standing.position.offset == 1
