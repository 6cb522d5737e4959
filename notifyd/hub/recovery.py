"""Subscribing without a hole: buffer what is live, read the past, merge by offset, release.

A replay is read in pages, each only after the page before it has left the outbox, so that a long past on a slow
connection costs one page of memory, and never more than the replays' share of the outbox. While it waits, live messages
are not held: they are in the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from notifyd.broker.base import Broker, Page, Retention, Scope
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.interest import Interest
from notifyd.hub.outbox import Outbox
from notifyd.hub.registry import Registry, Subscriber, Subscription
from notifyd.hub.replays import Replay, Replays
from notifyd.hub.traffic import Traffic
from notifyd.model import Notification
from notifyd.settings import TopicPolicy
from protocol.messages import Since
from protocol.position import Position

FEW_MESSAGES = 16
"""A page of so many is given its room in the outbox at once, not message by message: most who come back missed few."""

PAGE_MESSAGES = 100
"""Messages replayed before the outbox must have drained: a few milliseconds of work, some hundred kilobytes at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a new subscription starts with.

    `position` is the topic's newest (None without history); `recovered` says whether the past that was asked for is
    complete, None where none was asked for. `scope` is "node" while only what is published here can arrive.
    """

    position: Position | None
    recovered: bool | None
    scope: Scope = None


class Recovery:
    """Opens and closes subscriptions."""

    def __init__(
        self, registry: Registry, broker: Broker, interest: Interest, traffic: Traffic, events: Events
    ) -> None:
        self.replays = Replays()
        self._registry = registry
        self._broker = broker
        self._interest = interest
        self._traffic = traffic
        self._events = events

    async def open(self, subscriber: Subscriber, topic: str, since: Since) -> "CatchUp":
        """Register a subscription that catches up, and read where it stands.

        Raises BrokerUnavailable. Cancelled or failed, nothing stays registered.
        """
        subscription = self._registry.add(subscriber, topic)
        try:
            scope = await self._interest.acquire(topic, retention_of(subscription.topic.policy))
            catch_up = CatchUp(
                self._registry, self._broker, subscription, self._traffic, self._events, replays=self.replays
            )
            await catch_up.begin(since, scope)
        except BaseException:
            self.close(subscriber, topic)
            raise
        recovered = catch_up.standing.recovered
        if recovered is not None:
            self._events.count("recoveries", outcome="complete" if recovered else "incomplete")
        return catch_up

    def close(self, subscriber: Subscriber, topic: str) -> Subscription | None:
        """Unregister a subscription; None where there was none."""
        subscription = self._registry.remove(subscriber, topic)
        self._interest.release(topic)
        return subscription


class CatchUp:
    """A subscription on its way from a position in the past to live."""

    _replay: Replay

    def __init__(
        self,
        registry: Registry,
        broker: Broker,
        subscription: Subscription,
        traffic: Traffic,
        events: Events,
        *,
        replays: Replays,
    ) -> None:
        self.subscription = subscription
        self.standing = Standing(None, None)
        self._registry = registry
        self._broker = broker
        self._traffic = traffic
        self._events = events
        self._replays = replays
        self._retention = retention_of(subscription.topic.policy)
        self._since: Position | None = None

    async def begin(self, since: Since, scope: Scope) -> None:
        """Read the first page; `standing` tells the outcome. Nothing is sent yet."""
        subscription = self.subscription
        if isinstance(since, Position):
            self._since = subscription.sent = since
        page = await self._read(since)
        recovered = None if since == "latest" else page.continuous and page.top is not None
        self.standing = Standing(page.top, recovered, scope)
        if self._since is None:
            subscription.sent = _start_of(page)

    def release(self, *, tell_gap: bool) -> bool:
        """Queue what was read and, when that is all, what arrived meanwhile; then the subscription is live.

        False when more of the past is left: `run` goes on with it. With `tell_gap`, a past that is lost is told by a
        `gap` (a resumed subscription has no other way to learn it).
        """
        subscription = self.subscription
        if tell_gap and self.standing.recovered is False:
            self._tell_gap(self._since, self._replay.page.top)
        arrived, subscription.buffer = subscription.buffer or [], None
        whole = self._put_page() and not self._replay.page.more and self._put_all(arrived)
        if whole:
            self._registry.caught_up(subscription)
        else:
            subscription.replay = subscription.replay or trio.CancelScope()
        for delivery in arrived:
            if isinstance(delivery, Delivery) and delivery.position is None:
                self._put(delivery)  # no history has it
        self._outbox.flush()
        return whole

    def _put_page(self) -> bool:
        """Queue the page's messages as far as the outbox holds them; False when some are left."""
        subscription, page = self.subscription, self._replay.page
        subscription.sent = _start_of(page)
        if not page.messages:
            return True
        outbox, session, deliveries = self._outbox, subscription.subscriber.session, self._replay.deliveries
        fits, replayed, size_bytes = len(deliveries) <= FEW_MESSAGES and outbox.has_room(*deliveries), 0, 0
        for notification, delivery in zip(page.messages, deliveries, strict=True):
            if notification.origin != session or not self._is_echo(notification):
                if not fits and not outbox.has_room(delivery):
                    break
                size_bytes += self._put(delivery)
                replayed += 1
            subscription.sent = notification.position
        else:
            fits = True
        if replayed:
            self._events.count("messages_replayed", replayed)
            self._replays.keep(subscription.topic, self._replay, size_bytes)
        return fits

    def _put(self, delivery: Delivery) -> int:
        """Queue and count a delivery; return its bytes."""
        outbox = self._outbox
        outbox.put(delivery)
        size_bytes = len(delivery.frame(outbox.form))
        self._traffic.goes_out(outbox.form, size_bytes)
        return size_bytes

    def _put_all(self, arrived: Sequence[Delivery | Lost]) -> bool:
        """Queue what arrived while the page was read, likewise; what is left is in the history by now."""
        subscription = self.subscription
        for item in arrived:
            if isinstance(item, Lost):
                subscription.skip(item)
                continue
            position = item.position
            if position is not None and not subscription.has(position):
                if not self._outbox.has_room(item):
                    return False
                self._put(item)
                subscription.sent = position
        return True

    def _is_echo(self, notification: Notification) -> bool:
        """Whether what this very session published without an echo was published since it subscribed."""
        position, top = notification.position, self.standing.position
        if position is None or top is None:
            return False
        return position.epoch == top.epoch and position.offset > top.offset

    async def run(self) -> None:
        """Replay the rest, page by page, each when the one before has left; ends live, or when unsubscribed.

        While the broker is away it waits for it.
        """
        subscription = self.subscription
        assert subscription.replay is not None
        with subscription.replay:
            while not await self._replay_page():
                pass
        subscription.replay = None

    async def _replay_page(self) -> bool:
        """Read and queue one page; True when it was the last."""
        await self._outbox.wait_drained()
        sent = self.subscription.sent
        assert sent is not None
        try:
            page = await self._read(sent)
        except BrokerUnavailable as failure:
            self.subscription.buffer = None
            await trio.sleep(failure.retry_after_s)
            return False
        if not page.continuous:
            self._tell_gap(sent, page.top)
        return self.release(tell_gap=False)

    async def _read(self, since: Since) -> Page:
        if self.subscription.buffer is None:
            self.subscription.buffer = []
        topic = self.subscription.topic
        replay = None if since == "latest" else self._replays.find(topic, since)
        if replay is None:
            replay = Replay.of(
                topic, since, await self._broker.history(topic.name, since, PAGE_MESSAGES, self._retention)
            )
        self._replay = replay
        return replay.page

    @property
    def _outbox(self) -> Outbox:
        return self.subscription.subscriber.outbox

    def _tell_gap(self, since: Position | None, top: Position | None) -> None:
        if top is None:
            return
        first, reason = 1, "epoch"
        if since is not None and since.epoch == top.epoch:
            first, reason = since.offset + 1, "expired"
        if first <= top.offset:
            self._outbox.put_gap(
                Lost(self.subscription.topic.name, Position(top.epoch, first), last=top.offset, reason=reason)
            )


def retention_of(policy: TopicPolicy) -> Retention:
    """Tell how much of a topic its policy keeps."""
    return Retention(policy.history, policy.ttl_s)


def _start_of(page: Page) -> Position | None:
    """Tell where a page begins: before its first message, at the newest one where there is none."""
    first = page.messages[0].position if page.messages else None
    return page.top if first is None else Position(first.epoch, first.offset - 1)
