"""What the HTTP side needs of a node, and nothing more. `notifyd.node` provides it; tests bring their own.

Topics, keys and `data` arrive checked. A method refuses by raising `protocol.errors.RequestError`, whose code becomes
the HTTP status; `BrokerUnavailable` becomes 503. Methods that need the broker are async, the others answer at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Accepted
from notifyd.centre import Centre
from notifyd.settings import Settings
from protocol.errors import RequestError
from protocol.messages import HistoryReply, Key, Member
from protocol.position import Position
from protocol.topics import Pattern

if TYPE_CHECKING:
    from notifyd.supervision import TreeNode


class Publication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message that a backend service wants delivered. `trace` is one (protocol.trace) where it is not None."""

    topic: str
    data: Any
    key: Key | None = None
    trace: str | None = None


class TopicInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A topic in use: its subscribers on this node, and its newest position where it keeps history."""

    topic: str
    subscribers: int
    epoch: str | None = None
    offset: int | None = None


class ConnectionInfo(msgspec.Struct, frozen=True):
    """A connected client.

    `transport` is "websocket" or "device", `encoding` "json" or "msgpack", `address` the peer's. `since` is when
    it came and `heard` when its last byte did, both Unix ms; `heartbeat` the agreed seconds between beats,
    `round_trip_ms` the mean of the last five (None before the first), `queue_bytes` what is unsent.
    """

    session: str
    user: str
    transport: str
    encoding: str
    address: str
    since: int
    heard: int
    heartbeat: float
    round_trip_ms: float | None
    queue_bytes: int
    topics: list[str]


class Backend(Protocol):
    """A node, as its HTTP listener sees it. `centre` is where its settings change."""

    centre: Centre

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    async def publish(self, publication: Publication) -> Accepted:
        """Accept one message; the topic's policy decides about history."""

    async def publish_batch(self, publications: Sequence[Publication]) -> list[Accepted | RequestError]:
        """Accept messages in order and let them leave together.

        The answer has one result an item; a refused item is a returned RequestError, and the ones after it go on.
        """

    async def topics(self, pattern: Pattern | None, limit: int) -> tuple[list[TopicInfo], bool]:
        """List up to `limit` topics by name, and whether there are more."""

    async def history(self, topic: str, since: Position | Literal["earliest"], limit: int) -> HistoryReply:
        """Read kept messages as a client's `history` request would; the reply's `id` is not looked at."""

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is subscribed."""

    async def readiness(self) -> list[str]:
        """Ask the broker and the listeners; tell what is wrong, in words. Nothing means ready."""

    def connections(self, user: str | None, limit: int) -> tuple[list[ConnectionInfo], bool]:
        """List up to `limit` connections (of one user; "" is the anonymous one), and whether there are more."""

    async def disconnect(self, session: str) -> bool:
        """End a session's connection, on whichever node it is; False where there is none."""

    async def revoke(self, revocation: Revocation) -> None:
        """Let every node refuse the tokens it names, and end the connections of those who hold one."""

    def revocations(self) -> list[Revocation]:
        """List the revocations in force."""

    def tree(self) -> "TreeNode":
        """Take a picture of the supervision tree."""

    async def metrics(self) -> bytes:
        """Write all metrics in Prometheus' text format, version 0.0.4: those of every worker of the node."""
