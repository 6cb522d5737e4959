"""What a broker promises, and what it asks of the node around it. Everything above this file works with any broker.

Append, offset and delivery are one atomic step; a delivery goes to the `Receiver` the broker was opened with. Every
asynchronous method may raise `BrokerUnavailable` unless it says otherwise; then it may have happened all the same, and
cancelled likewise: but never half.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from notifyd.auth.revocations import Revocation
from notifyd.model import Notification, SessionId
from protocol.messages import Joined, Left, Member, Since
from protocol.position import Position

Scope: TypeAlias = Literal["node"] | None
"""How far something reaches: "node" while only this node's clients are known to be reached, None when all can be."""


class Retention(msgspec.Struct, frozen=True, gc=False):
    """How much of a topic is kept: `history` messages, each for `ttl_s` seconds. No history: no positions."""

    history: int
    ttl_s: float


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted publish.

    `scope` is "node" where only this node's clients are known to have been reached; `repeated` says that the
    key was known.
    """

    position: Position | None
    scope: Scope = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of history after a position, oldest first.

    `top` is the newest position of the topic (None without history). `continuous` is true only when nothing between the
    asked position and the first message is missing. `more` says that the limit left messages out. `base` is the offset
    after which the epoch began: messages up to it were accepted in an earlier epoch, under the same offsets.
    """

    messages: Sequence[Notification]
    top: Position | None
    continuous: bool
    more: bool
    base: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets of a topic that will not be delivered on this node: from `first` to `last`, both included.

    `reason` is the one of a `gap` (spec/wire.md): "expired" when the history has them no more, "epoch" when another
    life of the history began.
    """

    topic: str
    first: Position
    last: int
    reason: Literal["expired", "epoch"]


@dataclass(slots=True)
class SessionRecord:
    """What outlives a connection: whose it was, and per topic the position to resume from (None without history).

    `acknowledged` are the topics whose position the client acknowledged: it holds until a later one is.
    """

    session: SessionId
    user: str
    positions: dict[str, Position | None] = field(default_factory=dict)
    acknowledged: frozenset[str] = frozenset()


VERSIONS_KEPT = 100
"""The versions of the configuration that can be gone back to."""


class ConfigurationVersion(msgspec.Struct, frozen=True):
    """What the configuration centre lays over the settings of every node, from `time` (Unix ms) on.

    `version` counts from 1. `restores` is the version that it went back to, where it did.
    """

    version: int
    time: int
    author: str
    overlay: dict[str, Any]
    restores: int | None = None


class Receiver(Protocol):
    """What a node does with what its broker brings. All of it is synchronous, never blocks and never raises."""

    def deliver(self, batch: Sequence[Notification]) -> None:
        """Take notifications that arrived together; each topic's in order, each position once."""

    def lose(self, loss: Loss) -> None:
        """Take note of offsets that were to be delivered and will not be."""

    def announce(self, change: Joined | Left) -> None:
        """Tell a topic's subscribers that somebody came or went."""

    def take_over(self, session: SessionId) -> SessionRecord | None:
        """Give up a session that another node resumes: close its connection, return what it had; None: unknown."""

    def missed_takeovers(self) -> None:
        """Take note that sessions may have been taken over unheard: saved again, they show whose they are."""

    def end_session(self, session: SessionId) -> bool:
        """Disconnect a session, as an operator does; False where it is not connected here."""

    def watched_elsewhere(self, topics: Collection[str]) -> None:
        """Take note that clients of another node watch these topics, of those that a node speaks on only then."""

    def revoke_here(self, revocation: Revocation) -> None:
        """Refuse the tokens it names on this node from now on, and disconnect who holds one."""

    def configure_here(self, newest: ConfigurationVersion) -> None:
        """Let this version of the configuration hold, as far as this node can: the newest, and never an older one."""


Run: TypeAlias = Callable[..., Awaitable[None]]
"""A service: called with the keyword `task_status`, it serves until cancelled; called again after it failed."""


class Services(Protocol):
    """Where a broker lets its services run: a branch of the node's supervision tree."""

    async def start(self, name: str, run: Run) -> None:
        """Start a service and wait until it serves; what it raises before that is raised here."""

    def launch(self, name: str, run: Run) -> None:
        """Start a service without waiting for it: it is tried again, with backoff, from its first failure on."""

    async def stop(self, name: str) -> None:
        """Cancel a service and wait until it has cleaned up. Raises LookupError where there is none of that name."""


class Broker(Protocol):
    """The place where messages, positions, presence and sessions live.

    `is_shared` says that other nodes use it too: sessions are then saved while they live, so that any node can resume
    what a node that was killed had.
    """

    is_shared: bool

    async def start(self, services: Services) -> None:
        """Begin to do what the broker does by itself, as services. Returns also where it cannot be reached yet."""

    async def close(self) -> None:
        """Say goodbye before the services are stopped; never raises."""

    async def problems(self) -> list[str]:
        """Tell, in words, what keeps the broker from doing all it promises; nothing when it does. Never raises."""

    async def publish(
        self,
        topic: str,
        data: Any,
        retention: Retention,
        *,
        key: str | None = None,
        sender: str | None = None,
        origin: SessionId | None = None,
        trace: str | None = None,
    ) -> Accepted:
        """Accept a message: append it, give it a position and hand it to every node's receiver, in one step.

        A `key` seen on the topic within five minutes gets the first answer again, and nothing is delivered: the trace
        that is carried is the first one's. Without history it raises only where the key could not be remembered: while
        the broker is away the message reaches this node's subscribers.
        """

    async def subscribe(self, topic: str, retention: Retention) -> Scope:
        """Want the topic's messages on this node: called for its first subscriber.

        Without history it never raises: while the broker is away the answer is "node", and the topic reaches further
        once the broker is back. Where it raises, `unsubscribe` has to follow.
        """

    async def unsubscribe(self, topic: str) -> None:
        """Want them no longer: called after its last subscriber."""

    async def history(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        """Read up to `limit` messages after `since`. Without history it never raises: there is nothing to ask."""

    async def join(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as present; `announce` tells it to the topic's subscribers when it was not. Never raises.

        While the broker is away it takes effect when the broker is back.
        """

    async def leave(self, topic: str, member: Member, *, announce: bool) -> None:
        """Count a session as gone, unless it has joined on another node meanwhile; otherwise like `join`."""

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is present, in the order they joined."""

    async def topics(self) -> dict[str, Position | None]:
        """Tell which topics are known, with their newest positions."""

    async def load_session(self, session: SessionId, user: str) -> SessionRecord | None:
        """Take a session over for resuming; None when unknown, expired or another user's.

        One that lives on another node is given up there (`Receiver.take_over`).
        """

    async def save_session(self, record: SessionRecord, ttl_s: float) -> bool:
        """Keep a session for `ttl_s` seconds; False, and nothing is saved, where another node has taken it over."""

    async def end_session(self, session: SessionId) -> bool:
        """Disconnect a session on whichever other node it lives; False where none has it."""

    async def tell_watched(self, topics: Collection[str]) -> None:
        """Tell every other node that this one's clients watch these topics (`Receiver.watched_elsewhere`)."""

    async def revoke(self, revocation: Revocation) -> None:
        """Let every node refuse the tokens that a revocation names, those of nodes that come later included."""

    async def configurations(self, limit: int) -> list[ConfigurationVersion]:
        """Tell the newest versions of the configuration, the newest first; at most VERSIONS_KEPT are kept."""

    async def configure(self, version: ConfigurationVersion) -> bool:
        """Keep a version and let it hold on every node, this one before it returns (`Receiver.configure_here`).

        False, and nothing has happened, where its number does not follow the newest one's.
        """
