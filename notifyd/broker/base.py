"""What a broker promises. Everything above this file works with any broker that keeps these promises.

Append, offset and delivery are one atomic step; a delivery goes to the `deliver` function the broker was opened with.
Every method may raise `BrokerUnavailable`; cancelled, a method has either happened or not, never half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec
import trio

from notifyd.model import Notification, SessionId
from protocol.messages import Member
from protocol.position import Position

Deliver = Callable[[Sequence[Notification]], None]
"""Takes notifications that arrived together, in order; synchronous, never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a topic is kept: `history` messages, each for `ttl_s` seconds. No history: no positions."""

    history: int
    ttl_s: float


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An accepted publish.

    `scope` is "node" where only this node's clients could be reached; `repeated` says that the key was known.
    """

    position: Position | None
    scope: Literal["node"] | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of history after a position, oldest first.

    `top` is the newest position of the topic (None without history). `continuous` is true only when nothing between the
    asked position and the first message is missing. `more` says that the limit left messages out.
    """

    messages: Sequence[Notification]
    top: Position | None
    continuous: bool
    more: bool


@dataclass(slots=True)
class SessionRecord:
    """What outlives a connection: whose it was, and per topic the position to resume from (None without history).

    `acknowledged` are the topics whose position the client acknowledged: it holds until a later one is.
    """

    session: SessionId
    user: str
    positions: dict[str, Position | None] = field(default_factory=dict)
    acknowledged: frozenset[str] = frozenset()


class Broker(Protocol):
    """The place where messages, positions, presence and sessions live."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Do what the broker does by itself, such as forgetting what expired, until cancelled: a service."""

    async def publish(
        self,
        topic: str,
        data: Any,
        retention: Retention,
        *,
        key: str | None = None,
        sender: str | None = None,
        origin: SessionId | None = None,
    ) -> Accepted:
        """Accept a message: append it, give it a position and hand it to every node's `deliver`, in one step.

        A `key` seen on the topic within five minutes gets the first answer again, and nothing is delivered.
        """

    async def subscribe(self, topic: str) -> None:
        """Want the topic's messages on this node: called for its first subscriber."""

    async def unsubscribe(self, topic: str) -> None:
        """Want them no longer: called after its last subscriber."""

    async def history(
        self, topic: str, since: Position | Literal["earliest", "latest"], limit: int, retention: Retention
    ) -> Page:
        """Read up to `limit` messages after `since`."""

    async def join(self, topic: str, member: Member) -> None:
        """Count a session as present."""

    async def leave(self, topic: str, session: SessionId) -> None:
        """Count a session as gone."""

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is present, in the order they joined."""

    async def topics(self) -> dict[str, Position | None]:
        """Tell which topics are known, with their newest positions."""

    async def load_session(self, session: SessionId, user: str) -> SessionRecord | None:
        """Take a session out of the store for resuming; None when unknown, expired or another user's."""

    async def save_session(self, record: SessionRecord, ttl_s: float) -> None:
        """Keep a session for `ttl_s` seconds."""
