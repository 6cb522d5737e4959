import weakref
from unittest.mock import patch

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from notifyd.hub import delivery as delivery_module
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import JOINED_BYTES
from notifyd.model import Notification
from notifyd.settings import Overflow
from notifyd.tracing import Step
from protocol.framing import Form
from protocol.messages import Joined
from protocol.position import Position
from tests.kit.frames import read_frames
from tests.kit.hub_kit import HubKit, open_hub
from tests.kit.memory_node import policy


def notification(offset: int | None = 1, topic: str = "a:b", **fields: object) -> Notification:
    position = None if offset is None else Position("e1", offset)
    return Notification(topic, {"n": offset}, 1_790_000_000_000, position, **fields)


async def crowd(hub_kit: HubKit, size: int, topic: str = "a:b") -> list:
    """Subscribers in all four forms, in turn, live on a topic."""
    listening = [hub_kit.subscriber(form=Form(number % 4)) for number in range(size)]
    for one in listening:
        await one.subscribe(topic)
        hub_kit.hub.registry.go_live(one.subscriber.subscriptions[topic])
    return listening


async def test_no_step_of_it_is_a_checkpoint() -> None:
    async with open_hub() as hub_kit:
        await crowd(hub_kit, 8)
        fanout, topic = hub_kit.hub.fanout, hub_kit.hub.registry.topics["a:b"]
        with assert_no_checkpoints():
            fanout.deliver([notification(1), notification(2), notification(None, "nobody:here")])
            fanout.hand_out(topic, Delivery.of(notification(3), policy("**", overflow="gap")))
            fanout.flush()


async def test_a_message_is_encoded_once_an_encoding_and_wrapped_once_a_form() -> None:
    async with open_hub() as hub_kit:
        listening = await crowd(hub_kit, 40)
        with (
            patch.object(delivery_module, "encode", wraps=delivery_module.encode) as encode,
            patch.object(delivery_module, "to_wire", wraps=delivery_module.to_wire) as to_wire,
        ):
            hub_kit.hub.fanout.deliver([notification(1)])
            hub_kit.hub.fanout.flush()
        assert encode.call_count == 2
        assert to_wire.call_count == 4
        for one in listening:
            assert [message["data"] for message in read_frames(one.outbox.form, bytes(one.sink.taken))] == [{"n": 1}]


async def test_only_the_encodings_somebody_needs_are_made() -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber(form=Form.WEBSOCKET_JSON)
        await one.subscribe("a:b")
        with patch.object(delivery_module, "encode", wraps=delivery_module.encode) as encode:
            hub_kit.hub.fanout.deliver([notification(1)])
        assert encode.call_count == 1


async def test_what_is_queued_in_one_step_leaves_in_one_send() -> None:
    async with open_hub() as hub_kit:
        listening = await crowd(hub_kit, 4)
        other = hub_kit.subscriber()
        await other.subscribe("c:d")
        for offset in range(1, 6):
            hub_kit.hub.fanout.deliver([notification(offset)])
        hub_kit.hub.fanout.deliver([notification(1, "c:d")])
        assert not any(one.sink.sends for one in listening)
        await wait_all_tasks_blocked()
        assert [len(one.sink.sends) for one in [*listening, other]] == [1] * 5
        assert all(one.told("a:b") == [1, 2, 3, 4, 5] for one in listening)
        hub_kit.hub.fanout.deliver([notification(6)])
        await wait_all_tasks_blocked()
        assert [len(one.sink.sends) for one in listening] == [2] * 4


async def test_what_makes_a_whole_write_leaves_at_once() -> None:
    async with open_hub() as hub_kit:
        listening = await crowd(hub_kit, 8)
        filler = "x" * (JOINED_BYTES // 10)
        batch = [Notification("a:b", filler, 1_790_000_000_000, Position("e1", offset)) for offset in range(1, 26)]
        hub_kit.hub.fanout.deliver(batch)
        for one in listening:
            assert one.sink.sends
            assert max(one.sink.sends) <= JOINED_BYTES + JOINED_BYTES // 9
        await wait_all_tasks_blocked()
        assert all(one.told("a:b") == [*range(1, 26)] for one in listening)
        assert not any(one.outbox.calls.overflows for one in listening)


async def test_connections_that_are_owed_the_same_share_the_bytes() -> None:
    async with open_hub() as hub_kit:
        listening = [hub_kit.subscriber() for _ in range(3)]
        for one in listening:
            await one.subscribe("a:b")
            hub_kit.hub.registry.go_live(one.subscriber.subscriptions["a:b"])
        hub_kit.hub.fanout.deliver([notification(1), notification(2)])
        listening[1].outbox.put_frame(b"")  # a reply: what was handed over stands before it
        assert listening[0].outbox.fresh is listening[2].outbox.fresh is not None
        assert listening[1].outbox.fresh is None
        hub_kit.hub.fanout.flush()
        assert [one.told("a:b") for one in listening] == [[1, 2]] * 3


async def test_it_sends_within_the_next_step_of_the_scheduler() -> None:
    async with open_hub() as hub_kit:
        (one,) = await crowd(hub_kit, 1)
        await wait_all_tasks_blocked()
        hub_kit.hub.fanout.deliver([notification(1)])
        for _ in range(2):  # the order of tasks within a step is random
            await trio.lowlevel.checkpoint()
        assert one.sink.sends


async def test_echo_false_leaves_the_publishers_own_connection_out_and_no_other() -> None:
    async with open_hub() as hub_kit:
        listening = await crowd(hub_kit, 3)
        origin = listening[1].subscriber.session
        hub_kit.hub.fanout.deliver([notification(1, origin=origin), notification(2)])
        hub_kit.hub.fanout.deliver([notification(3, origin="gone")])
        await wait_all_tasks_blocked()
        assert [one.told("a:b") for one in listening] == [[1, 2, 3], [2, 3], [1, 2, 3]]
        assert hub_kit.events.counted("messages_delivered") == 3 + 3 + 3 - 1


@pytest.mark.long_steps("20,000 messages without a checkpoint are the test")
async def test_a_slow_consumer_never_slows_a_publisher() -> None:
    async with open_hub(policy("a:b", overflow="gap")) as hub_kit:
        healthy, slow = await crowd(hub_kit, 2)
        slow.sink.room_bytes = 0
        with assert_no_checkpoints():
            for offset in range(1, 20_000):
                hub_kit.hub.fanout.deliver([notification(offset)])
                hub_kit.hub.fanout.flush()
        assert healthy.told("a:b") == [*range(1, 20_000)]
        assert slow.outbox.queued_bytes <= 10**6 + 512
        await slow.drain()
        told = slow.told("a:b")
        assert told == [*range(1, len(told)), (len(told), 19_999)]


async def test_a_topic_nobody_has_costs_nothing() -> None:
    async with open_hub() as hub_kit:
        hub_kit.hub.fanout.deliver([notification(1)])
        assert not hub_kit.hub.registry.topics
        assert not hub_kit.events.counts


async def test_an_outbox_that_breaks_while_it_is_filled_harms_no_other() -> None:
    async with open_hub() as hub_kit:
        first, broken, last = await crowd(hub_kit, 3)
        broken.sink.break_off()
        for offset in (1, 2):
            hub_kit.hub.fanout.deliver([notification(offset)])
            hub_kit.hub.fanout.flush()
        assert first.told("a:b") == last.told("a:b") == [1, 2]
        assert broken.outbox.calls.broken == 1
        assert broken.outbox.queued_bytes == 0


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_what_has_a_trace_is_encoded_once_too_and_its_steps_are_told() -> None:
    async with open_hub(policy("a:b", trace=True)) as hub_kit:
        listening = await crowd(hub_kit, 8)
        listening[0].sink.room_bytes = 0
        with (
            assert_no_checkpoints(),
            patch.object(delivery_module, "encode", wraps=delivery_module.encode) as encode,
        ):
            hub_kit.hub.fanout.deliver([notification(1, trace=TRACE), notification(2), notification(3, trace=TRACE)])
            assert [record.ended for record in hub_kit.tracer.of(Step.DELIVERY)] == [False, False]
            hub_kit.hub.fanout.flush()
        assert encode.call_count == 2 * 3
        assert [message.get("trace") for message in listening[1].messages] == [TRACE, None, TRACE]
    assert [record.attributes for record in hub_kit.tracer.of(Step.FAN_OUT)] == [{"connections": 8}] * 2
    for record in hub_kit.tracer.of(Step.DELIVERY):
        assert (record.ended, record.attributes) == (True, {"connections": 8, "blocked": 1})


async def test_where_nobody_gets_it_there_is_no_delivery() -> None:
    async with open_hub() as hub_kit:
        hub_kit.hub.fanout.deliver([notification(1, trace=TRACE)])
        assert hub_kit.tracer.steps == []
        (one,) = await crowd(hub_kit, 1)
        hub_kit.hub.fanout.deliver([notification(1, trace=TRACE, origin=one.subscriber.session)])
        hub_kit.hub.fanout.flush()
    (step,) = hub_kit.tracer.steps
    assert (step.step, step.attributes, step.ended) == (Step.FAN_OUT, {"connections": 0}, True)


class TestLate:
    """Subscriptions that are not live yet."""

    @pytest.mark.parametrize("left_out", [False, True])
    async def test_while_the_past_is_read_messages_are_kept(self, left_out: bool) -> None:
        async with open_hub() as hub_kit:
            one = hub_kit.subscriber()
            catch_up = await hub_kit.hub.subscribe(one.subscriber, "a:b", "latest")
            origin = one.subscriber.session if left_out else None
            await hub_kit.publish("a:b", origin=origin)
            assert not one.sink.sends
            catch_up.release(tell_gap=False)
            assert one.told("a:b") == ([] if left_out else [1])

    async def test_live_copies_of_what_was_replayed_are_left_out(self) -> None:
        """A broker may answer a read with messages that are still on their way as deliveries."""
        async with open_hub() as hub_kit:
            one, other = hub_kit.subscriber(), hub_kit.subscriber()
            await other.subscribe("a:b")
            hub_kit.broker.hold_deliveries()
            await hub_kit.publish("a:b", 3)
            await one.subscribe("a:b", "earliest")
            await hub_kit.publish("a:b", 2)
            hub_kit.broker.deliver_held()
            await wait_all_tasks_blocked()
            assert one.told("a:b") == other.told("a:b") == [1, 2, 3, 4, 5]
            assert one.subscriber.subscriptions["a:b"].live

    async def test_its_own_message_without_echo_makes_it_live_too(self) -> None:
        async with open_hub() as hub_kit:
            one = hub_kit.subscriber()
            await one.subscribe("a:b")
            await hub_kit.publish("a:b", origin=one.subscriber.session)
            await hub_kit.publish("a:b")
            assert one.told("a:b") == [2]
            assert one.subscriber.subscriptions["a:b"].newest == hub_kit.hub.registry.topics["a:b"].position

    async def test_joined_and_left_reach_it_in_the_middle_of_a_replay(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 250)
            one = hub_kit.subscriber()
            one.sink.room_bytes = 100
            await one.subscribe("a:b", "earliest")
            topic = hub_kit.hub.registry.topics["a:b"]
            joined = Delivery(Joined(topic="a:b", user="bob", session="s"), Overflow.DISCONNECT, 0)
            hub_kit.hub.fanout.hand_out(topic, joined)
            await one.drain()
            assert one.told("a:b") == [*range(1, 101), "joined", *range(101, 251)]

    async def test_it_does_not_stay_touched_when_it_left(self) -> None:
        async with open_hub() as hub_kit:
            one = hub_kit.subscriber()
            await one.subscribe("a:b")
            hub_kit.hub.fanout.deliver([notification(1)])
            await one.leave()
            await wait_all_tasks_blocked()
            assert not hub_kit.hub.fanout._touched


class Payload(dict):
    """Data that can be watched going away."""


async def test_a_message_that_nobody_gets_now_is_not_kept() -> None:
    async with open_hub() as hub_kit:
        one = hub_kit.subscriber()
        await hub_kit.hub.subscribe(one.subscriber, "a:b", "latest")
        one.subscriber.subscriptions["a:b"].buffer = None  # it waits in the middle of a replay: the history has them
        data = Payload()
        kept = weakref.ref(data)
        hub_kit.hub.fanout.deliver([Notification("a:b", data, 1_790_000_000_000, Position("e1", 1))])
        del data
        await wait_all_tasks_blocked()
        assert kept() is None
