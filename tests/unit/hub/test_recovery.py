"""Subscribing to the past, case by case. Any interleaving at all is in test_recovery_interleavings.py."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.errors import BrokerUnavailable
from notifyd.hub.outbox import REPLAY_SHARE
from notifyd.hub.recovery import PAGE_MESSAGES
from protocol.position import Position
from tests.kit.hub_kit import HubKit, Listening, open_hub
from tests.kit.memory_node import policy


async def epoch_of(hub_kit: HubKit, topic: str = "a:b") -> str:
    return (await hub_kit.hub.history(topic, "latest", 1)).top.epoch


class TestStanding:
    async def check(
        self, since: str | int | None, position: int | None, recovered: bool | None, told: list[object], **kept: object
    ) -> None:
        async with open_hub(policy("a:b", **kept)) as hub_kit:
            await hub_kit.publish("a:b", 5)
            await trio.sleep(2)
            if isinstance(since, int):
                since = Position(await epoch_of(hub_kit), since)
            one = hub_kit.subscriber()
            standing = (await one.subscribe("a:b", since or Position("other", 3))).standing
            assert (standing.position and standing.position.offset) == position
            assert standing.recovered is recovered
            assert one.told("a:b") == told
            await hub_kit.publish("a:b")
            assert one.told("a:b")[len(told) :] == [6 if position is not None else "message"]

    async def test_latest(self, autojump_clock: MockClock) -> None:
        await self.check("latest", 5, None, [])

    async def test_earliest(self, autojump_clock: MockClock) -> None:
        await self.check("earliest", 5, True, [1, 2, 3, 4, 5])

    async def test_earliest_after_some_were_trimmed(self, autojump_clock: MockClock) -> None:
        await self.check("earliest", 5, False, [4, 5], history=2)

    async def test_a_position(self, autojump_clock: MockClock) -> None:
        await self.check(3, 5, True, [4, 5])

    async def test_the_newest_position(self, autojump_clock: MockClock) -> None:
        await self.check(5, 5, True, [])

    async def test_a_position_above_the_newest(self, autojump_clock: MockClock) -> None:
        await self.check(6, 5, False, [])

    async def test_a_position_whose_next_message_is_gone(self, autojump_clock: MockClock) -> None:
        await self.check(2, 5, False, [], history=2)

    async def test_the_last_position_that_can_be_continued(self, autojump_clock: MockClock) -> None:
        await self.check(3, 5, True, [4, 5], history=2)

    async def test_positions_outlive_their_messages(self, autojump_clock: MockClock) -> None:
        await self.check(5, 5, True, [], ttl_s=1)
        await self.check(4, 5, False, [], ttl_s=1)

    async def test_a_position_of_another_epoch(self, autojump_clock: MockClock) -> None:
        await self.check(None, 5, False, [])

    @pytest.mark.parametrize(("since", "recovered"), [("latest", None), ("earliest", False), (None, False)])
    async def test_without_history(self, since: str | None, recovered: bool | None, autojump_clock: MockClock) -> None:
        await self.check(since, None, recovered, [], history=0)


class TestGapOfAResumedSubscription:
    async def check(self, since: Callable[[str], Position], told: list[object], reason: str | None) -> None:
        async with open_hub(policy("a:b", history=2)) as hub_kit:
            await hub_kit.publish("a:b", 5)
            one = hub_kit.subscriber()
            await one.subscribe("a:b", since(await epoch_of(hub_kit)), tell_gap=True)
            await hub_kit.publish("a:b")
            assert one.told("a:b") == told
            assert [message["reason"] for message in one.messages if message["op"] == "gap"] == (
                [reason] if reason else []
            )

    async def test_expired(self) -> None:
        await self.check(lambda epoch: Position(epoch, 1), [(2, 5), 6], "expired")

    async def test_epoch(self) -> None:
        await self.check(lambda _: Position("other", 4), [(1, 5), 6], "epoch")

    async def test_above_the_newest_there_is_nothing_to_name(self) -> None:
        await self.check(lambda epoch: Position(epoch, 9), [6], None)

    async def test_none_where_all_is_there(self) -> None:
        await self.check(lambda epoch: Position(epoch, 3), [4, 5, 6], None)

    async def test_none_without_history(self) -> None:
        async with open_hub(policy("a:b", history=0)) as hub_kit:
            one = hub_kit.subscriber()
            await one.subscribe("a:b", Position("other", 4), tell_gap=True)
            assert one.told("a:b") == []


class TestReplay:
    async def slow(self, hub_kit: HubKit, *, size: int = 100, count: int = 350) -> Listening:
        """A subscriber whose socket takes little, in the middle of a replay of many messages."""
        await hub_kit.publish("a:b", count, size)
        one = hub_kit.subscriber(budget_bytes=20_000)
        one.sink.room_bytes = 1000
        await one.subscribe("a:b", "earliest")
        return one

    async def trickle(self, one: Listening, until: Callable[[], bool] | None = None) -> None:
        """Let the peer take 1000 bytes at a time until the replay is over."""
        while not (until or (lambda: one.subscriber.subscriptions["a:b"].replay is None))():
            assert one.outbox.queued_bytes <= 20_000 // REPLAY_SHARE
            one.sink.allow(1000)
            await wait_all_tasks_blocked()

    async def test_a_long_past_comes_in_pages_within_its_share_of_the_budget(self) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit)
            await self.trickle(one)
            await one.drain()
            assert one.told("a:b") == [*range(1, 351)]
            assert not one.outbox.calls.overflows

    async def test_a_fast_one_gets_it_page_by_page_too(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 3 * PAGE_MESSAGES + 1)
            one = hub_kit.subscriber()
            await one.subscribe("a:b", "earliest")
            await wait_all_tasks_blocked()
            assert one.told("a:b") == [*range(1, 3 * PAGE_MESSAGES + 2)]
            assert len(hub_kit.broker.called("history")) == 4

    async def test_what_is_published_meanwhile_comes_after_it_once(self) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit)
            published = 350

            def publish() -> bool:
                nonlocal published
                if published < 500:
                    published += 1
                    hub_kit.nursery.start_soon(hub_kit.publish, "a:b")
                return one.subscriber.subscriptions["a:b"].replay is None

            await self.trickle(one, until=publish)
            await one.drain()
            assert one.told("a:b") == [*range(1, published + 1)]

    async def test_a_live_message_of_another_topic_still_finds_room(self) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit, size=1000)
            await one.subscribe("c:d")
            await hub_kit.publish("c:d", 1, size=9000)
            assert not one.outbox.calls.overflows
            assert not one.ended

    async def test_where_others_hold_its_share_it_waits_for_its_turn(self) -> None:
        async with open_hub() as hub_kit:
            one = hub_kit.subscriber(budget_bytes=20_000)
            one.sink.room_bytes = 0
            await one.subscribe("c:d")
            await hub_kit.publish("c:d", 1, size=15_000)
            await hub_kit.publish("a:b", 3)
            await one.subscribe("a:b", "earliest")
            assert one.outbox.queued_bytes < 16_000
            await one.drain()
            assert one.told("a:b") == [1, 2, 3]

    async def test_messages_above_the_share_come_one_by_one(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 5, 15_000)
            one = hub_kit.subscriber(budget_bytes=20_000)
            one.sink.room_bytes = 10
            await one.subscribe("a:b", "earliest")
            assert one.outbox.queued_bytes < 20_000
            await one.drain()
            assert one.told("a:b") == [1, 2, 3, 4, 5]

    async def test_a_past_that_is_trimmed_on_the_way_is_told(self) -> None:
        async with open_hub(policy("a:b", history=400)) as hub_kit:
            one = await self.slow(hub_kit)
            await hub_kit.publish("a:b", 400)
            await self.trickle(one)
            await one.drain()
            told = one.told("a:b")
            sent = told.index((len(told), 750))
            assert told == [*range(1, sent + 1), (sent + 1, 750)]
            await hub_kit.publish("a:b")
            assert one.told("a:b")[-1] == 751

    async def test_an_epoch_that_ends_on_the_way_is_told(self) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit)
            hub_kit.broker._broker._histories.end_epoch("a:b")
            await hub_kit.publish("a:b", 3)
            await self.trickle(one)
            await one.drain()
            told = one.told("a:b")
            assert told[-1] == (1, 3)
            assert told[:-1] == [*range(1, len(told))]

    async def test_unsubscribed_before_it_begins_it_sends_nothing_more(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 350)
            one = hub_kit.subscriber()
            catch_up = await hub_kit.hub.subscribe(one.subscriber, "a:b", "earliest")
            assert not catch_up.release(tell_gap=False)
            await one.unsubscribe("a:b")
            await catch_up.run()
            assert one.told("a:b") == [*range(1, PAGE_MESSAGES + 1)]

    async def test_unsubscribed_on_the_way_it_ends(self) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit)
            await one.unsubscribe("a:b")
            await one.subscribe("a:b", "latest")
            await one.drain()
            await wait_all_tasks_blocked()
            await hub_kit.publish("a:b")
            told = one.told("a:b")
            assert told == [*range(1, len(told)), 351]
            assert len(told) < 350
            assert len(hub_kit.nursery.child_tasks) == 3

    async def test_a_broker_that_goes_away_is_waited_for(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            one = await self.slow(hub_kit)
            hub_kit.broker.fail("history", BrokerUnavailable("away", retry_after_s=5), times=3)
            await one.drain()
            await trio.sleep(1)
            await hub_kit.publish("a:b")
            await trio.sleep(13)
            assert 351 not in one.told("a:b")
            await trio.sleep(2)
            await wait_all_tasks_blocked()
            assert one.told("a:b") == [*range(1, 352)]

    async def test_its_own_messages_without_echo_are_left_out_from_the_subscription_on(self) -> None:
        async with open_hub() as hub_kit:
            one = hub_kit.subscriber()
            own = one.subscriber.session
            await hub_kit.publish("a:b", origin=own)
            await hub_kit.publish("a:b", 349, 100)
            one.sink.room_bytes = 1000
            await one.subscribe("a:b", "earliest")
            await hub_kit.publish("a:b", 2, origin=own)
            await hub_kit.publish("a:b", origin="other")
            await one.drain()
            await wait_all_tasks_blocked()
            assert one.told("a:b") == [*range(1, 351), 353]

    async def test_what_arrives_while_the_last_page_is_read_and_finds_no_room_is_read_again(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 1)
            one = hub_kit.subscriber(budget_bytes=20_000)
            catch_up = await hub_kit.hub.subscribe(one.subscriber, "a:b", "earliest")
            await hub_kit.publish("a:b", 30, 1000)
            one.sink.room_bytes = 10
            assert not catch_up.release(tell_gap=False)
            assert one.outbox.queued_bytes <= 20_000 // REPLAY_SHARE
            assert not one.outbox.calls.overflows
            hub_kit.nursery.start_soon(catch_up.run)
            await one.drain()
            assert one.told("a:b") == [*range(1, 32)]


@pytest.mark.parametrize("name", ["subscribe", "history"])
@pytest.mark.parametrize("cancelled", [True, False])
async def test_failed_or_cancelled_nothing_stays_subscribed(
    name: str, cancelled: bool, autojump_clock: MockClock
) -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        if cancelled:
            hub_kit.broker.pause(name)
            with trio.move_on_after(1):
                await one.subscribe("a:b")
            hub_kit.broker.resume(name)
        else:
            hub_kit.broker.fail(name, BrokerUnavailable("away"))
            with pytest.raises(BrokerUnavailable):
                await one.subscribe("a:b")
        assert not one.subscriber.subscriptions
        assert not hub_kit.hub.registry.topics
        await trio.sleep(10)
        assert not hub_kit.broker.wanted
        assert not await hub_kit.hub.presence("a:b")
        await one.subscribe("a:b")
