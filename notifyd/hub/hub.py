"""The hub: what a node does with topics, whoever asks: a client's connection or the HTTP side.

Permissions and rate limits are decided before the hub is asked.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import trio

from notifyd.auth.revocations import Revocation, Revocations
from notifyd.broker.base import Accepted, Broker, ConfigurationVersion, Loss, Page, Receiver, SessionRecord
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.hub.delivery import Delivery
from notifyd.hub.fanout import Fanout
from notifyd.hub.interest import Interest
from notifyd.hub.live_sessions import LiveSessions
from notifyd.hub.recovery import CatchUp, Recovery, retention_of
from notifyd.hub.registry import Registry, Subscriber
from notifyd.hub.topic_counts import TopicCounts
from notifyd.hub.traffic import Traffic
from notifyd.hub.watches import Watches
from notifyd.model import Notification, SessionId
from notifyd.settings import Settings
from notifyd.tracing import NoTracer, Step, Tracer
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.messages import Joined, Left, Member, Since
from protocol.position import Position

SESSION_BYTES = 18
"""Random bytes of a session's name: nobody guesses 144 bits."""


class Hub:
    """Topics, subscribers and their broker, for one node; towards the broker, its `Receiver`.

    `on_configuration` is called with a newer version of the configuration, and never raises.
    """

    def __init__(
        self,
        settings: Settings,
        open_broker: Callable[[Receiver], Broker],
        *,
        clock: Clock,
        events: Events,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._events = events
        self.tracer = tracer or NoTracer()
        self.revocations = Revocations()
        self.on_configuration: Callable[[ConfigurationVersion], None] = lambda _newest: None
        self.registry = Registry(settings.policy_for)
        self.traffic = Traffic()
        self.topic_counts = TopicCounts()
        self.watches = Watches(self.registry, clock.monotonic_s)
        self.fanout = Fanout(
            self.registry,
            traffic=self.traffic,
            topic_counts=self.topic_counts,
            events=events,
            clock=clock,
            tracer=self.tracer,
        )
        self.broker = open_broker(self)
        self.interest = Interest(self.registry, self.broker)
        self.recovery = Recovery(self.registry, self.broker, self.interest, self.traffic, events)
        self.sessions = LiveSessions(self.registry, self.broker, lambda: self._settings.sessions.ttl_s, record_of)

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
        trace: str | None = None,
    ) -> Accepted:
        """Accept a message and hand it to every subscriber; see Broker.publish. `data` must have been checked."""
        retention = retention_of(self._settings.policy_for(topic))
        with self.tracer.begin(Step.APPEND, topic, trace) as step:
            accepted = await self.broker.publish(
                topic, data, retention, key=key, sender=sender, origin=origin, trace=step.trace
            )
            if step.trace is not None:
                step.tell(repeated=accepted.repeated, scope=accepted.scope or "cluster")
        if self.topic_counts.is_counted:
            self.topic_counts.publish(topic, accepted)
        return accepted

    async def history(self, topic: str, since: Since, limit: int) -> Page:
        """Read kept messages after `since`; a position that cannot be continued reads what is still kept after it."""
        retention = retention_of(self._settings.policy_for(topic))
        page = await self.broker.history(topic, since, limit, retention)
        if page.continuous or not isinstance(since, Position):
            return page
        if page.top is None or since.epoch != page.top.epoch or since.offset > page.top.offset:
            return page
        return await self.broker.history(topic, "earliest", limit, retention)

    # --- subscriptions -----------------------------------------------------------------------------------------------

    async def subscribe(self, subscriber: Subscriber, topic: str, since: Since) -> CatchUp:
        """Open a subscription and count the session as present. The caller answers, then releases the CatchUp.

        Raises RequestError 409 and BrokerUnavailable; then nothing stays subscribed. Cancelled, `detach` has to follow.
        """
        if topic in subscriber.subscriptions:
            raise RequestError(ErrorCode.CONFLICT, f"already subscribed to {topic!r}")
        catch_up = await self.recovery.open(subscriber, topic, since)
        policy = self._settings.policy_for(topic)
        if policy.presence or policy.joins:
            await self.broker.join(topic, self._member(subscriber, self._clock.unix_ms()), announce=policy.joins)
        self.sessions.changed(subscriber)
        return catch_up

    async def unsubscribe(self, subscriber: Subscriber, topic: str) -> bool:
        """Close a subscription; False where there was none."""
        if self.recovery.close(subscriber, topic) is None:
            return False
        self.sessions.changed(subscriber)
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
            self.sessions.changed(subscriber)
            return offset
        return earlier.offset

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def resume(self, session: str, user: str) -> SessionRecord | None:
        """Find what a session had; None when it is unknown, expired or another user's. A live one is taken over.

        With a shared broker, one that lives here may have been taken over by another node unheard: the broker knows.
        """
        named = SessionId(session)
        live = self.registry.subscribers.get(named)
        record = None
        if live is None or (self.broker.is_shared and live.user == user):
            try:
                record = await self.broker.load_session(named, user)
            except BrokerUnavailable:
                if live is None:
                    raise
            live = self.registry.subscribers.get(named)
        if live is None or live.replaced:
            return record
        return record_of(live) if live.user == user else None

    async def restored(self, subscriber: Subscriber) -> None:
        """Note that all of a resumed session is subscribed again that its client may have; it is gone from the rest.

        Saved at once, also without topics, it shows whether it is still this node's.
        """
        restoring, subscriber.restoring = subscriber.restoring or {}, None
        self.sessions.changed(subscriber)
        await self._leave_all(subscriber, restoring.keys() - subscriber.subscriptions.keys())

    def new_session(self) -> SessionId:
        """Name a new session."""
        return SessionId(secrets.token_urlsafe(SESSION_BYTES))

    async def detach(self, subscriber: Subscriber, connection: str) -> None:
        """Let a subscriber go: keep its session for resuming and end its presence, unless the session lives on here.

        Where the broker is away what it should know is lost, and logged; the log calls its connection `connection`.
        """
        record, topics = record_of(subscriber), _present_in(subscriber)
        # Until the broker has it: its client may be back sooner.
        subscriber.restoring, subscriber.acknowledged = record.positions, record.acknowledged
        for topic in list(subscriber.subscriptions):
            self.recovery.close(subscriber, topic)
        try:
            if not subscriber.replaced:
                self.sessions.forget(subscriber)
                await self._save(record, connection)
        finally:
            successor = self.registry.subscribers.get(subscriber.session, subscriber)
            await self._leave_all(subscriber, topics - (set() if successor is subscriber else _present_in(successor)))

    async def _save(self, record: SessionRecord, connection: str) -> None:
        if record.positions:
            try:
                await self.broker.save_session(record, self._settings.sessions.ttl_s)
            except BrokerUnavailable as failure:
                self._events.log("warning", "session_not_saved", connection=connection, error=str(failure))

    async def _leave_all(self, subscriber: Subscriber, topics: Iterable[str]) -> None:
        """Leave topics side by side: also cancelled, each is begun, and what is begun the broker makes up for."""
        async with trio.open_nursery() as nursery:
            for topic in sorted(topics):  # in the same order each time: a simulation replays
                nursery.start_soon(self._leave, subscriber, topic)

    async def _leave(self, subscriber: Subscriber, topic: str) -> None:
        policy = self._settings.policy_for(topic)
        if policy.presence or policy.joins:
            await self.broker.leave(topic, self._member(subscriber, 0), announce=policy.joins)

    @staticmethod
    def _member(subscriber: Subscriber, since_ms: int) -> Member:
        return Member(user=subscriber.user, session=subscriber.session, since=since_ms)

    async def revoke(self, revocation: Revocation) -> None:
        """Refuse tokens on every node from now on, and disconnect who holds one. Raises BrokerUnavailable."""
        await self.broker.revoke(revocation)

    # --- what the broker brings: Receiver ----------------------------------------------------------------------------

    def deliver(self, batch: Sequence[Notification]) -> None:
        """Hand notifications to this node's subscribers."""
        self.recovery.replays.heed(batch)
        self.fanout.deliver(batch)

    def lose(self, loss: Loss) -> None:
        """Tell subscribers what they will not get."""
        self.fanout.lose(loss)

    def announce(self, change: Joined | Left) -> None:
        """Tell subscribers, but for the one it is about, who came or went."""
        topic = self.registry.topics.get(change.topic)
        if topic is not None:
            concerned = self.registry.subscribers.get(SessionId(change.session))
            delivery = Delivery(change, topic.policy.overflow, self._clock.unix_ms())
            self.fanout.hand_out(topic, delivery, concerned.outbox if concerned else None)

    def take_over(self, session: SessionId) -> SessionRecord | None:
        """Give a session up to another node: its connection here ends with 4100."""
        subscriber = self.registry.subscribers.get(session)
        if subscriber is None:
            return None
        record = record_of(subscriber)
        self.sessions.forget(subscriber)
        subscriber.replace()
        return record

    def missed_takeovers(self) -> None:
        """Save all sessions again: the broker knows which of them another node has by now."""
        self.sessions.recheck()

    def end_session(self, session: SessionId) -> bool:
        """Disconnect a session: its client is forbidden to come back by itself."""
        subscriber = self.registry.subscribers.get(session)
        if subscriber is not None:
            subscriber.end(CloseCode.FORBIDDEN, "disconnected by an operator")
        return subscriber is not None

    def watched_elsewhere(self, topics: Collection[str]) -> None:
        """Take note that clients of another node watch what this one says on demand."""
        self.watches.hear(topics)

    def revoke_here(self, revocation: Revocation) -> None:
        """Refuse tokens from now on, and end the connections of those who hold one."""
        self.revocations.add(revocation)
        for subscriber in list(self.registry.subscribers.values()):
            if subscriber.identity is not None and revocation.covers(subscriber.identity):
                subscriber.end(CloseCode.UNAUTHORIZED, "the token was revoked")

    def configure_here(self, newest: ConfigurationVersion) -> None:
        """Hand it to whoever has the settings."""
        self.on_configuration(newest)


def _present_in(subscriber: Subscriber) -> set[str]:
    """Tell where a subscriber counts as present, or did before its session was resumed."""
    return {*subscriber.subscriptions, *(subscriber.restoring or ())}


def record_of(subscriber: Subscriber) -> SessionRecord:
    """Write down what a subscriber would need to go on elsewhere."""
    unsent = subscriber.outbox.first_unsent()
    restoring, subscriptions = subscriber.restoring or {}, subscriber.subscriptions
    positions = restoring | {name: one.resume_position(unsent.get(name)) for name, one in subscriptions.items()}
    acknowledged = {name for name, one in subscriptions.items() if one.acknowledged is not None}
    acknowledged |= {name for name in restoring.keys() & subscriber.acknowledged if positions[name] == restoring[name]}
    return SessionRecord(subscriber.session, subscriber.user, positions, frozenset(acknowledged))
