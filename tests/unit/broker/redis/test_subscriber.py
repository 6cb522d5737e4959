"""What is subscribed at the servers stays what is wanted: through losses, moves, refusals and silence."""

import pytest
import trio
from redis.exceptions import ResponseError
from trio.testing import MockClock

from notifyd.broker.redis.feed import BATCH_CHANNELS, PROBE_AFTER_S
from notifyd.broker.redis.subscriber import IDLE_FEED_S, UNPLACED_S
from notifyd.errors import BrokerUnavailable
from tests.kit.subscriber_kit import DEADLINE_S, SubscriberKit, open_subscriber


async def subscribe(kit: SubscriberKit, *channels: str) -> None:
    """Subscribe them at the same time, as many clients do."""
    async with trio.open_nursery() as nursery:
        for channel in channels:
            nursery.start_soon(kit.subscriber.subscribe, channel)


async def refused(kit: SubscriberKit, channel: str) -> tuple[BrokerUnavailable, float]:
    """Subscribe in vain; return why, and after how long."""
    began_s = trio.current_time()
    with pytest.raises(BrokerUnavailable) as caught:
        await kit.subscriber.subscribe(channel)
    return caught.value, trio.current_time() - began_s


# --- subscribing and unsubscribing -----------------------------------------------------------------------------------


async def test_what_is_subscribed_arrives_from_then_on(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        assert kit.subscriber.is_subscribed("x")
        assert kit.subscribed() == {"x"}
        kit.servers.publish("x", b"1")
        await kit.settle()
        assert kit.messages == [("x", b"1")]
        assert kit.told_restored() == []
        assert kit.subscriber.problems() == []


async def test_messages_of_one_read_are_handed_over_together_and_in_order(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await subscribe(kit, "x", "y")
        for channel, payload in [("x", b"1"), ("y", b"2"), ("x", b"3")]:
            kit.servers.publish(channel, payload)
        await kit.settle()
        assert kit.batches == [[("x", b"1"), ("y", b"2"), ("x", b"3")]]


async def test_channels_wanted_at_once_go_into_few_commands(autojump_clock: MockClock) -> None:
    channels = [f"c{number}" for number in range(1200)]
    async with open_subscriber() as kit:
        await subscribe(kit, *channels)
        assert kit.subscribed() == {*channels}
        assert max(len(batch) for _, batch in kit.commands()) <= BATCH_CHANNELS
        assert len(kit.commands()) <= 6


async def test_what_is_unsubscribed_arrives_no_more_and_the_server_is_told(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await subscribe(kit, "x", "y")
        await kit.subscriber.unsubscribe("x")
        assert not kit.subscriber.is_subscribed("x")
        kit.servers.publish("x", b"late")
        await kit.settle()
        assert kit.messages == []
        assert kit.subscribed() == {"y"}


async def test_what_is_wanted_again_while_its_end_is_under_way_is_subscribed_in_the_end(
    autojump_clock: MockClock,
) -> None:
    async with open_subscriber(delay_s=lambda: 0.05) as kit:
        await kit.subscriber.subscribe("x")
        await kit.subscriber.unsubscribe("x")
        await trio.sleep(0.07)  # the server has ended it, and nobody here knows yet
        assert kit.subscribed() == set()
        await kit.subscriber.subscribe("x")
        assert kit.subscribed() == {"x"}
        assert kit.told_restored() == []  # whoever subscribes reads the past himself


async def test_what_is_wanted_again_before_the_server_heard_of_its_end_is_told_when_it_is_lost_later(
    autojump_clock: MockClock,
) -> None:
    async with open_subscriber(delay_s=lambda: 0.05) as kit:
        await subscribe(kit, "x", "y")
        for again in (kit.subscriber.subscribe, kit.subscriber.want):
            with trio.move_on_after(0.01):
                await kit.subscriber.subscribe("busy")  # the feed asks one thing at a time
            await kit.subscriber.unsubscribe("x")
            outcome = again("x")
            if outcome is not None:
                await outcome
                assert kit.told_restored() == []
            else:
                assert kit.told_restored() == ["x"]
            assert kit.subscriber.is_subscribed("x")
            await kit.subscriber.unsubscribe("busy")
            await kit.settle()
            kit.restored.clear()
            kit.node.cut()
            await kit.settle()
            assert kit.told_restored() == ["x", "y"]


async def test_unsubscribing_what_nobody_wants_does_nothing(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.unsubscribe("x")
        await kit.settle()
        assert kit.commands() == []


async def test_subscribing_twice_asks_once(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await subscribe(kit, "x", "x", "x")
        await kit.subscriber.subscribe("x")
        assert sum("x" in batch for _, batch in kit.commands()) == 1


async def test_a_cancelled_subscribe_leaves_the_wish_and_what_follows_is_told(autojump_clock: MockClock) -> None:
    async with open_subscriber(delay_s=lambda: 0.05) as kit:
        with trio.move_on_after(0.12) as scope:
            await kit.subscriber.subscribe("x")
        assert scope.cancelled_caught
        await kit.settle()
        assert kit.subscriber.is_subscribed("x")
        assert kit.told_restored() == ["x"]
        assert kit.subscriber._answers == {}


async def test_who_waits_while_another_ends_the_wish_is_told(autojump_clock: MockClock) -> None:
    outcome: list[tuple[BrokerUnavailable, float]] = []

    async def wait(kit: SubscriberKit) -> None:
        outcome.append(await refused(kit, "x"))

    async with open_subscriber(delay_s=lambda: 0.05) as kit, trio.open_nursery() as nursery:
        nursery.start_soon(wait, kit)
        await trio.sleep(0.01)
        await kit.subscriber.unsubscribe("x")
    [(failure, took_s)] = outcome
    assert str(failure) == "x was unsubscribed meanwhile"
    assert took_s < DEADLINE_S / 2


# --- the connection is lost ------------------------------------------------------------------------------------------


async def test_after_a_loss_everything_is_subscribed_again_in_batches_and_told(autojump_clock: MockClock) -> None:
    channels = [f"c{number}" for number in range(1200)]
    async with open_subscriber() as kit:
        await subscribe(kit, *channels)
        kit.servers.links[0].commands.clear()
        kit.node.cut()
        await kit.settle()
        assert kit.subscribed() == {*channels}
        assert len(kit.commands()) == 3
        assert [len(batch) for batch in kit.restored] == [499, 500, 201]  # the first one has the probe channel too
        assert kit.told_restored() == sorted(channels)


async def test_while_the_server_is_away_a_subscribe_fails_at_once_and_its_wish_is_told_later(
    autojump_clock: MockClock,
) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        kit.node.crash()
        await kit.settle()
        failure, took_s = await refused(kit, "y")
        assert (str(failure), took_s) == ("no messages from a: connection refused", 0.0)
        await kit.subscriber.unsubscribe("x")
        assert kit.subscriber.problems() == ["no messages from a: connection refused"]
        assert not kit.subscriber.is_subscribed("y")
        kit.node.restart()
        await kit.settle(3.0)
        assert kit.subscribed() == {"y"}
        assert kit.told_restored() == ["y"]
        assert kit.subscriber.problems() == []


async def test_a_server_that_is_away_from_the_beginning_is_waited_for_by_nobody(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        kit.node.crash()
        _, took_s = await refused(kit, "x")
        assert took_s < 0.1
        kit.node.restart()
        await kit.settle(3.0)
        assert kit.told_restored() == ["x"]


async def test_who_waits_for_a_confirmation_is_told_when_the_connection_is_lost(autojump_clock: MockClock) -> None:
    async with open_subscriber(delay_s=lambda: 0.05) as kit:
        await kit.subscriber.subscribe("x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, kit, "y")
            await trio.sleep(0.07)
            kit.node.cut()
        await kit.settle(1.0)
        assert kit.subscribed() == {"x", "y"}
        assert kit.told_restored() == ["x", "y"]


async def test_a_server_that_does_not_answer_costs_the_deadline_once(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        kit.node.stall()
        _, took_s = await refused(kit, "y")
        assert took_s <= DEADLINE_S
        _, took_s = await refused(kit, "z")
        assert took_s < 0.1
        kit.node.go_on()
        await kit.settle(3.0)
        assert kit.subscribed() == {"x", "y", "z"}


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_told_at_once_and_asked_again(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        kit.node.refusal = ResponseError("NOPERM no permissions to access a channel")
        failure, took_s = await refused(kit, "y")
        assert "a refuses to subscribe: NOPERM" in str(failure)
        assert took_s < 0.1
        assert kit.subscriber.problems() == [str(failure)]
        await kit.settle(20.0)
        assert len([1 for _, batch in kit.commands() if "y" in batch]) < 20  # the longer, the more seldom
        kit.node.refusal = None
        await kit.settle(3.0)
        assert kit.subscribed() == {"x", "y"}
        assert kit.subscriber.problems() == []
        assert kit.told_restored() == ["y"]
        assert len(kit.events.logged("subscribe_refused")) == 1


# --- several servers -------------------------------------------------------------------------------------------------


async def test_each_channel_is_subscribed_where_it_lives(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        for number in range(10):
            kit.servers.move(f"c{number}", "ab"[number % 2], told=True)
        await subscribe(kit, *(f"c{number}" for number in range(10)))
        assert kit.subscribed("a") == {f"c{number}" for number in range(0, 10, 2)}
        assert kit.subscribed("b") == {f"c{number}" for number in range(1, 10, 2)}
        kit.servers.publish("c1", b"1")
        await kit.settle()
        assert kit.messages == [("c1", b"1")]
        assert {child.name for child in kit.branch.snapshot().children} == {"subscriber", "feed a", "feed b"}


async def test_a_channel_that_moves_is_followed_and_told(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        await subscribe(kit, "x", "y")
        kit.servers.move("x", "b")
        kit.servers.publish("x", b"missed")
        await kit.settle()
        assert (kit.subscribed("a"), kit.subscribed("b")) == ({"y"}, {"x"})
        assert kit.told_restored() == ["x"]
        kit.servers.publish("x", b"1")
        await kit.settle()
        assert kit.messages == [("x", b"1")]


async def test_a_subscribe_that_goes_to_the_wrong_server_finds_the_right_one(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        kit.servers.move("x", "b")  # known to nobody here
        await kit.subscriber.subscribe("x")
        assert (kit.subscribed("a"), kit.subscribed("b")) == (set(), {"x"})
        assert kit.told_restored() == []


async def test_a_channel_that_moves_there_and_back_is_told(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.move("x", "b", told=True)
        kit.servers.publish("x", b"missed")
        kit.servers.move("x", "a", told=True)
        await kit.settle()
        assert (kit.subscribed("a"), kit.subscribed("b")) == ({"x"}, set())
        assert kit.told_restored() == ["x"]


async def test_plain_channels_stay_where_they_are_until_the_new_server_has_them(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b") as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.nodes["b"].crash()
        kit.servers.move("x", "b", told=True)
        await kit.settle()
        assert kit.subscribed("a") == {"x"}
        kit.servers.nodes["b"].restart()
        await kit.settle(3.0)
        assert (kit.subscribed("a"), kit.subscribed("b")) == (set(), {"x"})
        assert kit.told_restored() == ["x"]


async def test_who_waits_for_a_channel_on_the_move_is_told_when_it_stays(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b") as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.nodes["b"].stall()
        kit.servers.move("x", "b", told=True)
        await kit.settle(0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.subscriber.subscribe, "x")
            await kit.settle(0.1)
            kit.servers.move("x", "a", told=True)
        assert kit.told_restored() == ["x"]


async def test_a_connection_without_channels_is_closed_after_a_while_and_made_again(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        kit.servers.move("x", "b", told=True)
        await subscribe(kit, "x", "y")
        await kit.subscriber.unsubscribe("x")
        await kit.settle(IDLE_FEED_S + 1)
        assert kit.servers.nodes["b"].links == []
        assert {child.name for child in kit.branch.snapshot().children} == {"subscriber", "feed a"}
        await kit.subscriber.subscribe("x")
        assert kit.subscribed("b") == {"x"}


async def test_channels_without_a_server_wait_for_one(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        kit.servers.lost_table = True
        failure, took_s = await refused(kit, "x")
        assert (str(failure), took_s) == ("no server of the Cluster answers", 0.0)
        assert kit.subscriber.problems() == ["1 channels have no server yet: no server of the Cluster answers"]
        kit.servers.lost_table = False
        await kit.settle(UNPLACED_S + 0.5)
        assert kit.subscriber.is_subscribed("x")
        assert kit.told_restored() == ["x"]


async def test_when_channels_become_those_of_shards_they_are_subscribed_as_such(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.sharded = True
        kit.servers.change()
        await kit.settle()
        assert kit.subscribed() == {"x"}
        assert ("SSUBSCRIBE", ["x"]) in kit.commands()
        assert kit.told_restored() == ["x"]
        kit.servers.publish("x", b"1")
        await kit.settle()
        assert kit.messages == [("x", b"1")]


# --- the probe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [False, True])
async def test_a_server_that_has_forgotten_is_found_out_by_a_probe(autojump_clock: MockClock, sharded: bool) -> None:
    async with open_subscriber("a", "b", sharded=sharded) as kit:
        kit.servers.move("x", "b", told=True)
        await subscribe(kit, "x", "y")
        await kit.settle(3 * PROBE_AFTER_S)
        assert kit.told_restored() == []
        for node in kit.servers.nodes.values():
            node.forget()
        await kit.settle(PROBE_AFTER_S + DEADLINE_S + 1)
        assert kit.subscribed("b") == {"x"}
        assert kit.subscribed("a") == {"y"}
        assert kit.told_restored() == ["x", "y"]
        reasons = [reason for link in kit.servers.links for reason in link.reasons]
        assert len(reasons) == 2
        assert all("published a probe, but it did not come" in reason for reason in reasons)


async def test_a_server_that_sends_messages_is_not_probed(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        for _ in range(20):
            kit.servers.publish("x", b"1")
            await trio.sleep(PROBE_AFTER_S - 0.5)
        assert kit.servers.executed == []


async def test_a_probe_that_cannot_be_published_says_nothing_of_the_feed(autojump_clock: MockClock) -> None:
    async with open_subscriber() as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.lost_table = True
        await kit.settle(10 * PROBE_AFTER_S)
        assert 5 <= len(kit.servers.executed) <= 10
        assert kit.subscriber.is_subscribed("x")
        assert kit.servers.links[0].runs == 1


async def test_a_probe_channel_that_moves_is_replaced(autojump_clock: MockClock) -> None:
    async with open_subscriber("a", "b", sharded=True) as kit:
        await kit.subscriber.subscribe("x")
        kit.servers.move("probe", "b")
        await kit.settle(2 * PROBE_AFTER_S)
        assert kit.subscriber._feeds["a"].probe_channel == "probe:{0}"
        assert kit.node.subscribed == {"x", "probe:{0}"}
        assert kit.servers.links[0].runs == 1
