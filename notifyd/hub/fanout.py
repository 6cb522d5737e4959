"""One message to many connections: synchronous, encoded once, sent without waiting.

`deliver` appends to outboxes; what arrives together is sent together by one `flush` per connection, in the same or the
next step of the scheduler: nothing is held back for a timer.
"""

from collections.abc import Sequence

import trio

from notifyd.broker.base import Loss
from notifyd.clock import Clock
from notifyd.events import Events
from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import JoinedFrames, Outbox
from notifyd.hub.registry import Registry, Topic
from notifyd.model import Notification
from protocol.position import Position


class Fanout:
    """Hands notifications to every subscriber of their topics on this node.

    A core service: `run` sends what `deliver` queued. No method but `run` is a checkpoint.
    """

    def __init__(self, registry: Registry, events: Events, clock: Clock) -> None:
        self._registry = registry
        self._events = events
        self._clock = clock
        self._touched: dict[Outbox, object] = {}
        self._queued: list[tuple[Notification, int]] = []
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
            delivery = Delivery.of(notification, topic.policy.overflow)
            left_out = self._registry.subscribers.get(notification.origin) if notification.origin else None
            count = self.hand_out(topic, delivery, left_out.outbox if left_out else None)
            self._queued.append((notification, count))

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
        """Queue one delivery for a topic's subscribers, all but `left_out`; return how many got it."""
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
        if self._queued:
            self._observe_latency()

    def _observe_latency(self) -> None:
        """Tell how old the messages are that have just been sent: from here on they are in the kernel's hands.

        The age of one that another node or Redis accepted is told by their clock, to the millisecond.
        """
        queued, self._queued = self._queued, []
        now_s, unix_s = self._clock.monotonic_s(), self._clock.unix_s()
        for notification, count in queued:
            received_s = notification.received_s
            age_s = unix_s - notification.time_ms / 1000 if received_s is None else now_s - received_s
            if count:
                self._events.observe("delivery_latency_seconds", max(0.0, age_s), count)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Flush whenever something was queued, until cancelled."""
        task_status.started()
        while True:
            self.flush()
            await self._sender.park()
