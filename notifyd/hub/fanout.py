"""One message to many connections: synchronous, encoded once, sent without waiting.

`deliver` appends to outboxes; what arrives together is sent together by one `flush` per connection, in the same or the
next step of the scheduler: nothing is held back for a timer.
"""

from collections.abc import Iterable, Sequence

import trio

from notifyd.broker.base import Loss
from notifyd.clock import Clock
from notifyd.errors import StreamBroken
from notifyd.events import Events
from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import JOINED_BYTES, Fresh, Outbox, in_order
from notifyd.hub.registry import Registry, Topic
from notifyd.hub.topic_counts import TopicCounts
from notifyd.hub.traffic import FORMS, Traffic
from notifyd.model import Notification
from notifyd.tracing import NoTracer, Span, Step, Tracer
from protocol.framing import Form
from protocol.position import Position


class Fanout:
    """Hands notifications to every subscriber of their topics on this node.

    A core service: `run` sends what `deliver` queued. No method but `run` is a checkpoint.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        traffic: Traffic,
        topic_counts: TopicCounts,
        events: Events,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._registry = registry
        self._traffic = traffic
        self._events = events
        self._clock = clock
        self._topic_counts = topic_counts
        self._tracer = tracer or NoTracer()
        self._deliveries: list[Span] = []
        self._touched: dict[Outbox, object] = {}
        self._queued: list[tuple[Notification, int]] = []
        self._queued_since_s = 0.0
        self._fresh_bytes = 0
        self._sender = trio.lowlevel.ParkingLot()

    def deliver(self, batch: Sequence[Notification]) -> None:
        """Queue notifications that arrived together, in order."""
        topics = self._registry.topics
        for notification in batch:
            topic = topics.get(notification.topic)
            if topic is None:
                continue
            if notification.position is not None:
                topic.position = notification.position
            delivery = Delivery.of(notification, topic.policy)
            left_out = self._registry.subscribers.get(notification.origin) if notification.origin else None
            if notification.trace is None:
                count = self.hand_out(topic, delivery, left_out.outbox if left_out else None)
            else:
                count = self._trace(topic, delivery, left_out.outbox if left_out else None, notification.trace)
            if count:
                self._queued.append((notification, count))
                if self._fresh_bytes >= JOINED_BYTES:  # a whole write: nothing is won by waiting
                    self.flush()
            if self._topic_counts.is_counted:
                self._topic_counts.deliver(topic.name, count, topic.position)

    def _trace(self, topic: Topic, delivery: Delivery, left_out: Outbox | None, trace: str) -> int:
        """Hand out what has a trace: the fan-out is one step, and all of what `flush` does with it is another."""
        with self._tracer.begin(Step.FAN_OUT, topic.name, trace) as step:
            count = self.hand_out(topic, delivery, left_out)
            step.tell(connections=count)
        if count:
            sending = self._tracer.begin(Step.DELIVERY, topic.name, step.trace)
            sending.tell(connections=count)
            self._deliveries.append(sending)
        return count

    def lose(self, loss: Loss) -> None:
        """Tell a topic's subscribers which offsets will not come; they go on behind them."""
        topic = self._registry.topics.get(loss.topic)
        if topic is None:
            return
        topic.position = Position(loss.first.epoch, loss.last)
        if not self._touched:
            self._begin()
        for outbox in topic.live:
            outbox.put_gap(Lost(loss.topic, loss.first, loss.last, loss.reason))
        for outbox, subscription in list(topic.catching_up.items()):
            if subscription.buffer is not None:
                subscription.buffer.append(Lost(loss.topic, loss.first, loss.last, loss.reason))
            elif subscription.replayed and not subscription.has(topic.position):
                subscription.skip(Lost(loss.topic, loss.first, loss.last, loss.reason))
                self._registry.go_live(subscription)
                self._touched[outbox] = None
        self._touched.update(topic.live)

    def hand_out(self, topic: Topic, delivery: Delivery, left_out: Outbox | None = None) -> int:
        """Queue one delivery for a topic's subscribers, all but `left_out`; return for how many."""
        live = topic.live
        if not self._touched:
            self._begin()
        hand_all(live, delivery, left_out)
        count = len(live) - (left_out in live)
        if count:
            self._count_out(topic, delivery, left_out)
        if topic.catching_up:
            count += self._hand_to_late(topic, delivery, left_out)
        self._events.count("messages_delivered", count)
        self._touched.update(live)
        return count

    def _begin(self) -> None:
        """Wake the task that sends what is queued from now on."""
        self._sender.unpark()
        self._queued_since_s = self._clock.monotonic_s()

    def _count_out(self, topic: Topic, delivery: Delivery, left_out: Outbox | None) -> None:
        """Count what the live ones were handed: once a form, however many they are."""
        for form, receivers in enumerate(topic.live_forms):
            if receivers:
                frame = delivery.frames[form] or delivery.frame(FORMS[form])
                self._traffic.goes_out(FORMS[form], len(frame), receivers)
                self._fresh_bytes += len(frame)
        if left_out is not None and left_out in topic.live:
            self._traffic.goes_out(left_out.form, len(delivery.frame(left_out.form)), -1)

    def _hand_to_late(self, topic: Topic, delivery: Delivery, left_out: Outbox | None) -> int:
        """Give those that catch up what they would miss; return how many got it.

        While one waits for its outbox in the middle of a replay, messages are not kept for it: the history has them.
        """
        position, count = delivery.position, 0
        for outbox, subscription in list(topic.catching_up.items()):
            wanted = outbox is not left_out
            if subscription.buffer is not None:
                if wanted:
                    subscription.buffer.append(delivery)
                continue
            if position is not None:
                if not subscription.replayed or subscription.has(position):
                    continue
                self._registry.go_live(subscription)
            if wanted:
                outbox.put(delivery)
                self._traffic.goes_out(outbox.form, len(delivery.frame(outbox.form)))
                self._touched[outbox] = None
                count += 1
        return count

    def flush(self) -> None:
        """Send everything queued by `deliver`: one non-blocking send a connection."""
        touched, self._touched, self._fresh_bytes = self._touched, {}, 0
        flush_all(touched)
        if touched:
            self._observe_sent()
        if self._deliveries:
            self._end_deliveries(touched)

    def _end_deliveries(self, touched: Iterable[Outbox]) -> None:
        """End the steps of what was sent together; what a socket did not take is for its connection's writer."""
        deliveries, self._deliveries = self._deliveries, []
        blocked = sum(outbox.is_blocked for outbox in touched)
        for sending in deliveries:
            sending.tell(blocked=blocked)
            sending.end()

    def _observe_sent(self) -> None:
        """Tell how long the fan-out took, and how old the messages are that the kernel has just been given.

        The age of one that another node or Redis accepted is told by their clock, to the millisecond.
        """
        queued, self._queued = self._queued, []
        now_s, unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        self._events.observe("fanout_seconds", now_s - self._queued_since_s)
        for notification, count in queued:
            received_s = notification.received_s
            age_s = unix_s - notification.time_ms / 1000 if received_s is None else now_s - received_s
            self._events.observe("delivery_latency_seconds", max(0.0, age_s), count)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush whenever something was queued, until cancelled."""
        task_status.started()
        while True:
            self.flush()
            await self._sender.park()


def hand_all(outboxes: Iterable[Outbox], delivery: Delivery, left_out: Outbox | None = None) -> None:
    """Hand a delivery to outboxes, all but `left_out`; `flush_all` has to follow in this step or the next.

    Most of them were handed the same before, and go on sharing one chain: so it is known that they share the bytes.
    """
    before: Fresh = None
    after: Fresh = before, delivery
    for outbox in outboxes:
        if outbox.fresh is not before:
            before = outbox.fresh
            after = before, delivery
        if outbox is not left_out:
            outbox.fresh = after


def flush_all(outboxes: Iterable[Outbox]) -> None:
    """Send what outboxes were handed, one non-blocking send each; those that are owed the same share the bytes.

    This is done for every message at every connection: the usual case, in which nothing stands before what is fresh,
    calls nothing but the socket. All else is for the outbox.
    """
    joined: Fresh = None
    form, data, size_bytes = Form.WEBSOCKET_JSON, b"", 0
    for outbox in outboxes:
        fresh = outbox.fresh
        if fresh is not joined or outbox.form is not form:
            joined, form = fresh, outbox.form
            data = b"".join([delivery.frame(form) for delivery in in_order(fresh)])
            size_bytes = len(data)
        if outbox.queued_bytes or outbox.is_blocked or outbox.is_closed or not 0 < size_bytes <= outbox.budget_bytes:
            outbox.flush()
            continue
        outbox.fresh = None
        sink = outbox.sink
        try:
            sent_bytes = sink.send_now(data)
        except StreamBroken:
            outbox.break_off(in_order(fresh))
        else:
            if sent_bytes < size_bytes or sink.has_unsent:
                outbox.block(memoryview(data)[sent_bytes:], in_order(fresh))
