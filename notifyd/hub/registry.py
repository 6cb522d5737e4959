"""Who listens: every topic with its subscribers on this node, every session with its subscriber."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import Outbox
from notifyd.hub.traffic import FORMS
from notifyd.model import Identity, SessionId
from notifyd.settings import TopicPolicy
from protocol.errors import CloseCode
from protocol.position import Continuity, Position

_DUPLICATE = Continuity.DUPLICATE


class Subscription:
    """One subscriber on one topic.

    It is catching up from its opening until `Recovery` has replayed the past, and until the live messages have come as
    far as the replay did; then it is live. While it reads the past, `buffer` holds what arrives meanwhile (None when
    nothing needs to be held); `replayed` says that only the live messages have to catch up now. `sent` is the position
    up to which messages were queued for it, `acknowledged` what the client confirmed.
    """

    __slots__ = ("acknowledged", "buffer", "live", "replay", "replayed", "sent", "subscriber", "topic")

    def __init__(self, topic: "Topic", subscriber: "Subscriber") -> None:
        self.topic = topic
        self.subscriber = subscriber
        self.live = False
        self.replayed = False
        self.buffer: list[Delivery | Lost] | None = []
        self.sent: Position | None = None
        self.acknowledged: Position | None = None
        self.replay: trio.CancelScope | None = None

    def resume_position(self, unsent: Position | None) -> Position | None:
        """Tell where a later connection goes on: after the last message acknowledged, else after the last one sent.

        `unsent` is the oldest position that the socket has not taken, None where it took all.
        """
        if self.acknowledged is not None:
            return self.acknowledged
        if unsent is not None:
            return Position(unsent.epoch, unsent.offset - 1)
        return self.newest

    @property
    def newest(self) -> Position | None:
        """The position up to which messages were queued; None without history."""
        return self.topic.position if self.live else self.sent

    def has(self, position: Position) -> bool:
        """Whether a message was queued while the subscription caught up."""
        sent = self.sent
        return sent is not None and sent.epoch == position.epoch and position.offset <= sent.offset

    def skip(self, lost: Lost) -> None:
        """Tell the client of offsets that will not come, as far as it has not got them; the next is the one after."""
        last = Position(lost.epoch, lost.last)
        if self.has(last):
            return
        first = lost.first
        if self.sent is not None and self.sent.epoch == lost.epoch:
            first = max(first, self.sent.offset + 1)
        self.subscriber.outbox.put_gap(Lost(lost.topic, Position(lost.epoch, first), lost.last, lost.reason))
        self.sent = last


class Topic:
    """A topic that somebody on this node subscribes to. `position` is the newest one delivered here.

    `live_forms` says, by `Form`, how many of the live ones want it.
    """

    __slots__ = ("catching_up", "live", "live_forms", "name", "policy", "position")

    def __init__(self, name: str, policy: TopicPolicy) -> None:
        self.name = name
        self.policy = policy
        self.position: Position | None = None
        self.live: dict[Outbox, Subscription] = {}
        self.live_forms = [0] * len(FORMS)
        self.catching_up: dict[Outbox, Subscription] = {}

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are."""
        return len(self.live) + len(self.catching_up)


class SubscriberConnection(Protocol):
    """The connection of a subscriber."""

    def end(self, code: CloseCode, message: str) -> None:
        """Close it, with a message for people. Returns at once."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """A connected session as the hub sees it.

    `identity` is what its token says. `restoring` are the topics of a resumed session that are not subscribed yet, with
    the positions to go on from, and `acknowledged` those of them whose client acknowledged it. `replaced` says that
    another connection, here or on another node, has the session now.
    """

    session: SessionId
    user: str
    outbox: Outbox
    client: SubscriberConnection
    since_ms: int
    identity: Identity | None = None
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    restoring: dict[str, Position | None] | None = None
    acknowledged: frozenset[str] = frozenset()
    replaced: bool = False

    def end(self, code: CloseCode, message: str) -> None:
        """Close the connection."""
        self.client.end(code, message)

    def replace(self) -> None:
        """Close the connection: another one has the session now."""
        self.replaced = True
        self.end(CloseCode.REPLACED, "the session was resumed by another connection")


class Registry:
    """The node's subscribers and topics."""

    def __init__(self, policy_for: Callable[[str], TopicPolicy]) -> None:
        self.topics: dict[str, Topic] = {}
        self.subscribers: dict[SessionId, Subscriber] = {}
        self._policy_for = policy_for

    def reload(self, policy_for: Callable[[str], TopicPolicy]) -> None:
        """Let new policies hold."""
        self._policy_for = policy_for
        for topic in self.topics.values():
            topic.policy = policy_for(topic.name)

    def attach(self, subscriber: Subscriber) -> None:
        """Take in a subscriber, whose connection calls `detach` when it ends; one of the same session is replaced."""
        older = self.subscribers.get(subscriber.session)
        if older is not None:
            older.replace()
        self.subscribers[subscriber.session] = subscriber

    def detach(self, subscriber: Subscriber) -> None:
        """Forget a subscriber and all its subscriptions."""
        for topic in list(subscriber.subscriptions):
            self.remove(subscriber, topic)
        if self.subscribers.get(subscriber.session) is subscriber:
            del self.subscribers[subscriber.session]

    def add(self, subscriber: Subscriber, topic_name: str) -> Subscription:
        """Make a subscription that catches up; `go_live` ends that."""
        topic = self.topics.get(topic_name)
        if topic is None:
            topic = self.topics[topic_name] = Topic(topic_name, self._policy_for(topic_name))
        subscription = Subscription(topic, subscriber)
        topic.catching_up[subscriber.outbox] = subscription
        subscriber.subscriptions[topic.name] = subscription  # the topic's string, not one more for each subscriber
        return subscription

    def caught_up(self, subscription: Subscription) -> None:
        """Let a subscription that has all of the past go live.

        A broker may answer a read with messages whose live copies are still on their way here: then it waits for the
        first that is new, lest those come twice.
        """
        subscription.buffer = None
        position = subscription.topic.position
        if subscription.sent is None or (position is not None and position.judge(subscription.sent) is _DUPLICATE):
            self.go_live(subscription)
        else:
            subscription.replayed = True

    def go_live(self, subscription: Subscription) -> None:
        """Let a subscription take part in the fan-out."""
        outbox = subscription.subscriber.outbox
        if subscription.topic.catching_up.pop(outbox, None) is not None:
            subscription.topic.live[outbox] = subscription
            subscription.topic.live_forms[outbox.form] += 1
            subscription.live = True
            subscription.buffer = None

    def remove(self, subscriber: Subscriber, topic_name: str) -> Subscription | None:
        """End a subscription and its replay; None where there was none. A topic nobody is left on is forgotten."""
        subscription = subscriber.subscriptions.pop(topic_name, None)
        if subscription is None:
            return None
        if subscription.replay is not None:
            subscription.replay.cancel()
        topic = subscription.topic
        if topic.live.pop(subscriber.outbox, None) is not None:
            topic.live_forms[subscriber.outbox.form] -= 1
        topic.catching_up.pop(subscriber.outbox, None)
        if not topic.subscribers and self.topics.get(topic_name) is topic:
            del self.topics[topic_name]
        return subscription
