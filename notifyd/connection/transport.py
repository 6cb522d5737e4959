"""What a connection needs of its transport, whichever it is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from notifyd.hub.outbox import Outbox
from notifyd.model import Identity
from protocol.codec import Frame
from protocol.errors import CloseCode
from protocol.framing import Form
from protocol.messages import Connect

if TYPE_CHECKING:
    from notifyd.connection.connection import Connection


class Transport(Protocol):
    """The receiving half of a client's connection, as frames, and the bytes that end it."""

    form: Form

    async def receive(self) -> list[Frame] | None:
        """Wait for frames that arrived together; None at the end of the stream.

        Raises RemoteProtocolError, after every valid frame before the fault was returned, and StreamBroken.
        Cancelled, no frame is lost.
        """

    def attach(self, outbox: Outbox) -> None:
        """Send the transport's own answers (to the handshake, WebSocket pongs, the close reply) through the outbox."""

    def set_payload_limit(self, limit_bytes: int) -> None:
        """Refuse payloads above this from their header alone."""

    def final_frame(self, code: CloseCode, message: str) -> bytes:
        """Build what the peer is to be sent last; b"" when it has had its last frame already."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open transport. `identity` is who the handshake proved the client to be; `hello` what it asked for by it.

    `topics` are to be subscribed at once. `echo` serves the connection in the reader's stead (`[debug] echo`).
    """

    transport: Transport
    identity: Identity | None = None
    hello: Connect | None = None
    topics: tuple[str, ...] = ()
    echo: "Callable[[Connection], Awaitable[None]] | None" = None


OpenTransport = Callable[["Connection"], Awaitable[Opened | None]]
"""Performs the handshake inside the connection's nursery; None when it refused the client and has told it why."""
