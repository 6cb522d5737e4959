"""One message to many connections: synchronous, encoded once, sent without waiting.

`deliver` appends to outboxes; what arrives together is sent together by one `flush` per connection, in the same or the
next step of the scheduler: nothing is held back for a timer.
"""

from collections.abc import Iterable, Sequence

import trio

from notifyd.broker.base import Loss
from notifyd.events import Events
from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import JoinedFrames, Outbox
from notifyd.hub.registry import Registry, Topic
from notifyd.model import Notification
from notifyd.tracing import NoTracer, Span, Step, Tracer
from protocol.position import Position


class Fanout:
    """Hands notifications to every subscriber of their topics on this node.

    A core service: `run` sends what `deliver` queued. No method but `run` is a checkpoint.
    """

    def __init__(self, registry: Registry, events: Events, tracer: Tracer | None = None) -> None:
        self._registry = registry
        self._events = events
        self._tracer = tracer or NoTracer()
        self._deliveries: list[Span] = []
        self._touched: dict[Outbox, object] = {}
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
                self.hand_out(topic, delivery, left_out.outbox if left_out else None)
            else:
                self._trace(topic, delivery, left_out.outbox if left_out else None, notification.trace)

    def _trace(self, topic: Topic, delivery: Delivery, left_out: Outbox | None, trace: str) -> None:
        """Hand out what has a trace: the fan-out is one step, and all of what `flush` does with it is another."""
        with self._tracer.begin(Step.FAN_OUT, topic.name, trace) as step:
            count = self.hand_out(topic, delivery, left_out)
            step.tell(connections=count)
        if count:
            sending = self._tracer.begin(Step.DELIVERY, topic.name, step.trace)
            sending.tell(connections=count)
            self._deliveries.append(sending)

    def lose(self, loss: Loss) -> None:
        """Tell a topic's subscribers which offsets will not come; they go on behind them."""
        topic = self._registry.topics.get(loss.topic)
        if topic is None:
            return
        topic.position = Position(loss.first.epoch, loss.last)
        if not self._touched:
            self._sender.unpark()
        for outbox in topic.live:
            outbox.put_gap(Lost(loss.topic, loss.first, loss.last, loss.reason))
        for outbox, subscription in list(topic.catching_up.items()):
            if subscription.buffer is not None:
                subscription.buffer.append(Lost(loss.topic, loss.first, loss.last, loss.reason))
            elif subscription.replayed and not subscription.has(topic.position):
                subscription.skip(Lost(loss.topic, loss.first, loss.last, loss.reason))
                self._registry.go_live(subscription)
                self._touched[outbox] = None
        self._events.count("gaps", reason=loss.reason)
        self._touched.update(topic.live)

    def hand_out(self, topic: Topic, delivery: Delivery, left_out: Outbox | None = None) -> int:
        """Queue one delivery for a topic's subscribers, all but `left_out`; return for how many."""
        live = topic.live
        count = len(live)
        if not self._touched:
            self._sender.unpark()
        if left_out is None:
            for outbox in live:
                outbox.append(delivery)
        else:
            for outbox in live:
                if outbox is not left_out:
                    outbox.append(delivery)
            count -= left_out in live
        if topic.catching_up:
            count += self._hand_to_late(topic, delivery, left_out)
        self._events.count("messages_delivered", count)
        self._touched.update(live)
        return count

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
                self._touched[outbox] = None
                count += 1
        return count

    def flush(self) -> None:
        """Send everything queued by `deliver`: one non-blocking send a connection."""
        touched, self._touched = self._touched, {}
        joined: JoinedFrames = {}
        for outbox in touched:
            outbox.flush(joined)
        if self._deliveries:
            self._end_deliveries(touched)

    def _end_deliveries(self, touched: Iterable[Outbox]) -> None:
        """End the steps of what was sent together; what a socket did not take is for its connection's writer."""
        deliveries, self._deliveries = self._deliveries, []
        blocked = sum(outbox.is_blocked for outbox in touched)
        for sending in deliveries:
            sending.tell(blocked=blocked)
            sending.end()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush whenever something was queued, until cancelled."""
        task_status.started()
        while True:
            self.flush()
            await self._sender.park()
