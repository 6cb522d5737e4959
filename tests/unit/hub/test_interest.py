import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.errors import BrokerUnavailable
from notifyd.hub.interest import LINGER_S
from tests.kit.hub_kit import open_hub

AWAY = BrokerUnavailable("away", retry_after_s=3)


async def test_the_first_subscriber_tells_the_broker_and_the_last_one_late(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        first, second = hub_kit.subscriber(), hub_kit.subscriber()
        await first.subscribe("a:b")
        await second.subscribe("a:b")
        assert hub_kit.broker.called("subscribe") == ["a:b"]
        await first.unsubscribe("a:b")
        await trio.sleep(2 * LINGER_S)
        assert not hub_kit.broker.called("unsubscribe")
        await second.unsubscribe("a:b")
        await trio.sleep(LINGER_S * 0.99)
        assert hub_kit.broker.wanted == {"a:b"}
        await trio.sleep(LINGER_S * 0.02)
        assert not hub_kit.broker.wanted
        assert not hub_kit.hub.interest._subscribed


async def test_who_comes_back_at_once_costs_the_broker_nothing(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        for _ in range(5):
            await one.subscribe("a:b")
            await one.unsubscribe("a:b")
            await trio.sleep(LINGER_S / 2)
        await one.subscribe("a:b")
        await trio.sleep(5 * LINGER_S)
        assert hub_kit.broker.called("subscribe") == ["a:b"]
        assert not hub_kit.broker.called("unsubscribe")


async def test_two_at_once_ask_once(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        hub_kit.broker.pause("subscribe")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hub_kit.subscriber().subscribe, "a:b")
            await wait_all_tasks_blocked()
            hub_kit.broker.resume("subscribe")
        assert hub_kit.broker.called("subscribe") == ["a:b"]
        assert not hub_kit.hub.interest._locks


async def test_who_comes_while_the_broker_is_told_that_all_have_gone_is_heard(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one, other = hub_kit.subscriber(), hub_kit.subscriber()
        await one.subscribe("a:b")
        hub_kit.broker.pause("unsubscribe")
        await one.unsubscribe("a:b")
        await hub_kit.broker.waiting("unsubscribe")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.subscribe, "a:b")
            await wait_all_tasks_blocked()
            hub_kit.broker.resume("unsubscribe")
        assert hub_kit.broker.wanted == {"a:b"}
        await hub_kit.publish("a:b")
        assert other.told("a:b") == [1]


async def test_who_comes_back_while_another_topic_has_its_turn_is_kept(autojump_clock: MockClock) -> None:
    """Both topics fall due together; the second is wanted again while the broker is told of the first."""
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        await one.subscribe("a:b")
        await one.subscribe("c:d")
        hub_kit.broker.pause("unsubscribe")
        await one.unsubscribe("a:b")
        await one.unsubscribe("c:d")
        await hub_kit.broker.waiting("unsubscribe")
        await one.subscribe("c:d")
        hub_kit.broker.resume("unsubscribe")
        await trio.sleep(5 * LINGER_S)
        assert hub_kit.broker.wanted == {"c:d"}
        assert hub_kit.broker.called("unsubscribe") == ["a:b"]


async def test_a_broker_that_is_away_is_told_again_until_it_hears(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        await one.subscribe("a:b")
        hub_kit.broker.fail("unsubscribe", AWAY, times=3)
        await one.unsubscribe("a:b")
        await trio.sleep(LINGER_S + 2.5 * AWAY.retry_after_s)
        assert len(hub_kit.broker.called("unsubscribe")) == 3
        await trio.sleep(AWAY.retry_after_s)
        assert not hub_kit.broker.wanted
        await trio.sleep(100)
        assert len(hub_kit.broker.called("unsubscribe")) == 4


async def test_who_comes_back_between_two_tries_subscribes_anew(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        await one.subscribe("a:b")
        hub_kit.broker.fail("unsubscribe", AWAY)
        await one.unsubscribe("a:b")
        await trio.sleep(LINGER_S * 1.5)
        await one.subscribe("a:b")
        await trio.sleep(100)
        assert hub_kit.broker.wanted == {"a:b"}
        assert hub_kit.broker.called("subscribe") == ["a:b", "a:b"]


async def test_a_broker_that_wants_to_be_asked_at_once_is_not_asked_in_a_loop(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        await one.subscribe("a:b")
        hub_kit.broker.fail("unsubscribe", BrokerUnavailable("away", retry_after_s=0), times=None)
        await one.unsubscribe("a:b")
        await trio.sleep(10)
        assert 5 < len(hub_kit.broker.called("unsubscribe")) <= 10


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_subscribe_that_fails_leaves_nothing_at_the_broker(cancelled: bool, autojump_clock: MockClock) -> None:
    """Cancelled or failed, it may have happened all the same: the broker is told late that nobody is there."""
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        hub_kit.broker.pause("subscribe")
        with trio.move_on_after(1):
            await one.subscribe("a:b")
        hub_kit.broker.resume("subscribe")
        if not cancelled:
            hub_kit.broker.fail("subscribe", AWAY)
            with pytest.raises(BrokerUnavailable):
                await one.subscribe("a:b")
        assert not hub_kit.hub.registry.topics
        assert not one.subscriber.subscriptions
        await trio.sleep(3 * LINGER_S)
        assert hub_kit.broker.called("unsubscribe") == ["a:b"]
        assert not hub_kit.hub.interest._idle
        assert not hub_kit.hub.interest._locks


async def test_a_failed_subscribe_takes_nothing_from_who_came_meanwhile(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        one, other = hub_kit.subscriber(), hub_kit.subscriber()
        hub_kit.broker.pause("subscribe")

        async def give_up() -> None:
            with trio.move_on_after(1):
                await one.subscribe("a:b")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await hub_kit.broker.waiting("subscribe")
            nursery.start_soon(other.subscribe, "a:b")
            await trio.sleep(2)
            hub_kit.broker.resume("subscribe")
        await trio.sleep(5 * LINGER_S)
        assert hub_kit.broker.wanted == {"a:b"}
        await hub_kit.publish("a:b")
        assert other.told("a:b") == [1]
