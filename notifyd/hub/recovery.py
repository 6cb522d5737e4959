"""Subscribing without a hole: buffer what is live, read the past, merge by offset, release.

A replay is read in pages, each only after the page before it has left the outbox, so that a long past on a slow
connection costs one page of memory. While it waits, live messages are not held: they are in the history.
"""

from dataclasses import dataclass
from typing import Literal

import trio

from notifyd.broker.base import Broker, Page, Retention
from notifyd.hub.delivery import Delivery
from notifyd.hub.interest import Interest
from notifyd.hub.outbox import Outbox
from notifyd.hub.registry import Registry, Subscriber, Subscription
from notifyd.settings import TopicPolicy
from protocol.framing import to_wire
from protocol.messages import Gap, encode
from protocol.position import Position

PAGE_MESSAGES = 100
"""Messages replayed before the outbox must have drained: a few milliseconds of work, some hundred kilobytes at most."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a new subscription starts with.

    `position` is the topic's newest (None without history); `recovered` says whether the past that was asked for is
    complete, None where none was asked for.
    """

    position: Position | None
    recovered: bool | None


class Recovery:
    """Opens and closes subscriptions."""

    def __init__(self, registry: Registry, broker: Broker, interest: Interest) -> None:
        self._registry = registry
        self._broker = broker
        self._interest = interest

    async def open(
        self, subscriber: Subscriber, topic: str, since: Position | Literal["earliest", "latest"]
    ) -> "CatchUp":
        """Register a subscription that catches up, and read where it stands.

        Raises BrokerUnavailable. Cancelled or failed, nothing stays registered.
        """
        subscription = self._registry.add(subscriber, topic)
        try:
            await self._interest.acquire(topic)
            catch_up = CatchUp(self._registry, self._broker, subscription)
            await catch_up.begin(since)
        except BaseException:
            self.close(subscriber, topic)
            raise
        return catch_up

    def close(self, subscriber: Subscriber, topic: str) -> Subscription | None:
        """Unregister a subscription; None where there was none."""
        subscription = self._registry.remove(subscriber, topic)
        self._interest.release(topic)
        return subscription


class CatchUp:
    """A subscription on its way from a position in the past to live."""

    def __init__(self, registry: Registry, broker: Broker, subscription: Subscription) -> None:
        self.subscription = subscription
        self.standing = Standing(None, None)
        self._registry = registry
        self._broker = broker
        self._retention = retention_of(subscription.topic.policy)
        self._page: Page = Page([], None, True, False)
        self._since: Position | None = None

    async def begin(self, since: Position | Literal["earliest", "latest"]) -> None:
        """Read the first page; `standing` tells the outcome. Nothing is sent yet."""
        page = await self._read(since)
        recovered = None if since == "latest" else page.continuous and page.top is not None
        self.standing = Standing(page.top, recovered)
        self._since = since if isinstance(since, Position) else None

    def release(self, *, tell_gap: bool) -> bool:
        """Queue what was read and, when that is all, what arrived meanwhile; then the subscription is live.

        False when more of the past is left: `run` goes on with it. With `tell_gap`, a past that is lost is told by a
        `gap` (a resumed subscription has no other way to learn it).
        """
        subscription, page = self.subscription, self._page
        if tell_gap and self.standing.recovered is False:
            self._tell_gap(self._since, page.top)
        whole = self._put_page()
        subscription.subscriber.outbox.flush()
        if page.more or not whole:
            subscription.buffer = None
            return False
        for delivery in subscription.buffer or ():
            if not _already_sent(delivery.position, subscription.sent):
                self._outbox.put(delivery)
        self._registry.go_live(subscription)
        self._outbox.flush()
        return True

    def _put_page(self) -> bool:
        """Queue the page's messages as far as the outbox holds them; False when some are left."""
        subscription, page = self.subscription, self._page
        subscription.sent = page.top if not page.messages else _before(page.messages[0].position)
        for notification in page.messages:
            delivery = Delivery.of(notification, subscription.topic.policy.overflow)
            if not self._outbox.has_room(delivery):
                return False
            self._outbox.put(delivery)
            subscription.sent = notification.position
        return True

    async def run(self) -> None:
        """Replay the rest, page by page, each when the one before has left; ends live, or when unsubscribed."""
        subscription = self.subscription
        with trio.CancelScope() as scope:
            subscription.replay = scope
            while True:
                await self._outbox.wait_drained()
                assert subscription.sent is not None
                page = await self._read(subscription.sent)
                if not page.continuous:
                    self._tell_gap(subscription.sent, page.top)
                if self.release(tell_gap=False):
                    break
        subscription.replay = None

    async def _read(self, since: Position | Literal["earliest", "latest"]) -> Page:
        self.subscription.buffer = []
        self._page = await self._broker.history(self.subscription.topic.name, since, PAGE_MESSAGES, self._retention)
        return self._page

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
            gap = Gap(topic=self.subscription.topic.name, first=first, last=top.offset, reason=reason, epoch=top.epoch)
            form = self._outbox.form
            self._outbox.put_frame(to_wire(form, encode(gap, form.encoding), 0))


def retention_of(policy: TopicPolicy) -> Retention:
    """Tell how much of a topic its policy keeps."""
    return Retention(policy.history, policy.ttl_s)


def _before(position: Position | None) -> Position | None:
    return None if position is None else Position(position.epoch, position.offset - 1)


def _already_sent(position: Position | None, sent: Position | None) -> bool:
    return position is not None and sent is not None and position.epoch == sent.epoch and position.offset <= sent.offset
