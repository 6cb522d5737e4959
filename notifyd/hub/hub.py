"""The hub: what a node does with topics, whoever asks: a client's connection or the HTTP side.

Permissions and rate limits are decided before the hub is asked.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from notifyd.broker.base import Accepted, Broker, Deliver, Page, SessionRecord
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.hub.delivery import Delivery
from notifyd.hub.fanout import Fanout
from notifyd.hub.interest import Interest
from notifyd.hub.recovery import CatchUp, Recovery, retention_of
from notifyd.hub.registry import Registry, Subscriber
from notifyd.model import SessionId
from notifyd.settings import Settings
from protocol.errors import ErrorCode, RequestError
from protocol.messages import Joined, Left, Member
from protocol.position import Position

SESSION_BYTES = 18
"""Random bytes of a session's name: nobody guesses 144 bits."""


class Hub:
    """Topics, subscribers and their broker, for one node."""

    def __init__(
        self, settings: Settings, open_broker: Callable[[Deliver], Broker], *, clock: Clock, events: Events
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._events = events
        self.registry = Registry(settings.policy_for)
        self.fanout = Fanout(self.registry, events)
        self.broker = open_broker(self.fanout.deliver)
        self.interest = Interest(self.registry, self.broker)
        self.recovery = Recovery(self.registry, self.broker, self.interest)

    def reload(self, settings: Settings) -> None:
        """Let new topic policies hold, also for the topics in use."""
        self._settings = settings
        self.registry.reload(settings.policy_for)

    # --- messages ----------------------------------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        data: Any,
        *,
        key: str | None = None,
        sender: str | None = None,
        origin: SessionId | None = None,
    ) -> Accepted:
        """Accept a message and hand it to every subscriber; see Broker.publish. `data` must have been checked."""
        retention = retention_of(self._settings.policy_for(topic))
        return await self.broker.publish(topic, data, retention, key=key, sender=sender, origin=origin)

    async def history(self, topic: str, since: Position | Literal["earliest", "latest"], limit: int) -> Page:
        """Read kept messages after `since`; a position that cannot be continued reads what is still kept after it."""
        retention = retention_of(self._settings.policy_for(topic))
        page = await self.broker.history(topic, since, limit, retention)
        if page.continuous or not isinstance(since, Position):
            return page
        if page.top is None or since.epoch != page.top.epoch or since.offset > page.top.offset:
            return page
        return await self.broker.history(topic, "earliest", limit, retention)

    # --- subscriptions -----------------------------------------------------------------------------------------------

    async def subscribe(
        self, subscriber: Subscriber, topic: str, since: Position | Literal["earliest", "latest"]
    ) -> CatchUp:
        """Open a subscription and count the session as present. The caller answers, then releases the CatchUp.

        Raises RequestError 409 and BrokerUnavailable; then nothing stays subscribed. Cancelled, `detach` has to follow.
        """
        if topic in subscriber.subscriptions:
            raise RequestError(ErrorCode.CONFLICT, f"already subscribed to {topic!r}")
        catch_up = await self.recovery.open(subscriber, topic, since)
        if self._settings.policy_for(topic).presence:
            member = Member(user=subscriber.user, session=subscriber.session, since=self._clock.unix_ms())
            try:
                await self.broker.join(topic, member)
            except BrokerUnavailable:
                self.recovery.close(subscriber, topic)
                with self._tolerant("presence_not_ended"):
                    await self._end_presence(subscriber, topic)  # it may have joined all the same
                raise
        self._announce(Joined(topic=topic, user=subscriber.user, session=subscriber.session), subscriber)
        return catch_up

    async def unsubscribe(self, subscriber: Subscriber, topic: str) -> bool:
        """Close a subscription; False where there was none."""
        if self.recovery.close(subscriber, topic) is None:
            return False
        await self._leave(subscriber, topic)
        return True

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is subscribed, in the order they came."""
        return await self.broker.presence(topic)

    def acknowledge(self, subscriber: Subscriber, topic: str, offset: int) -> int:
        """Note that a client handled everything up to `offset`; return the highest offset acknowledged so far."""
        subscription = subscriber.subscriptions.get(topic)
        if subscription is None:
            raise RequestError(ErrorCode.CONFLICT, f"not subscribed to {topic!r}")
        newest = subscription.newest
        if newest is None or offset > newest.offset:
            raise RequestError(ErrorCode.BAD_REQUEST, f"offset {offset} has not been sent on {topic!r}")
        earlier = subscription.acknowledged
        if earlier is None or earlier.epoch != newest.epoch or earlier.offset < offset:
            subscription.acknowledged = Position(newest.epoch, offset)
            return offset
        return earlier.offset

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def resume(self, session: str, user: str) -> SessionRecord | None:
        """Find what a session had; None when it is unknown, expired or another user's. A live one is taken over."""
        live = self.registry.subscribers.get(SessionId(session))
        if live is None:
            return await self.broker.load_session(SessionId(session), user)
        return record_of(live) if live.user == user else None

    def new_session(self) -> SessionId:
        """Name a new session."""
        return SessionId(secrets.token_urlsafe(SESSION_BYTES))

    async def detach(self, subscriber: Subscriber) -> None:
        """Let a subscriber go: keep its session for resuming and end its presence, unless the session lives on here.

        Where the broker is away what it should know is lost, and logged.
        """
        record, topics = record_of(subscriber), list(subscriber.subscriptions)
        for topic in topics:
            self.recovery.close(subscriber, topic)
        try:
            if record.positions and not subscriber.replaced:
                with self._tolerant("session_not_saved"):
                    await self.broker.save_session(record, self._settings.sessions.ttl_s)
        finally:
            await self._leave_all(subscriber, topics)

    async def _leave_all(self, subscriber: Subscriber, topics: list[str]) -> None:
        pending = list(subscriber.leaving or ())
        for topic in [*topics, *pending]:
            successor = self.registry.subscribers.get(subscriber.session, subscriber)
            if topic not in successor.subscriptions:
                with self._tolerant("presence_not_ended"):
                    await (self._end_presence if topic in pending else self._leave)(subscriber, topic)

    async def _leave(self, subscriber: Subscriber, topic: str) -> None:
        self._announce(Left(topic=topic, user=subscriber.user, session=subscriber.session), subscriber)
        if self._settings.policy_for(topic).presence:
            await self._end_presence(subscriber, topic)

    async def _end_presence(self, subscriber: Subscriber, topic: str) -> None:
        """Tell the broker that a session left; what fails, or is cancelled, `detach` tries again."""
        subscriber.leaving = (subscriber.leaving or set()) | {topic}
        await self.broker.leave(topic, subscriber.session)
        subscriber.leaving = (subscriber.leaving - {topic}) or None

    @contextmanager
    def _tolerant(self, event: str) -> Iterator[None]:
        """Log, and go on, where the broker cannot be told."""
        try:
            yield
        except BrokerUnavailable as failure:
            self._events.log("warning", event, error=str(failure))

    def _announce(self, change: Joined | Left, subscriber: Subscriber) -> None:
        topic = self.registry.topics.get(change.topic)
        if topic is not None and topic.policy.joins:
            delivery = Delivery(change, topic.policy.overflow, self._clock.unix_ms())
            self.fanout.hand_out(topic, delivery, subscriber.outbox)


def record_of(subscriber: Subscriber) -> SessionRecord:
    """Write down what a subscriber would need to go on elsewhere."""
    unsent = subscriber.outbox.first_unsent()
    positions, subscriptions = dict(subscriber.restoring or {}), subscriber.subscriptions
    positions |= {name: one.resume_position(unsent.get(name)) for name, one in subscriptions.items()}
    acknowledged = frozenset(name for name, one in subscriptions.items() if one.acknowledged is not None)
    return SessionRecord(subscriber.session, subscriber.user, positions, acknowledged)
