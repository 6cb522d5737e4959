"""The socket we own: the only way bytes enter or leave a client's connection.

Sending is synchronous and never waits, so that a fan-out can hand out without a single checkpoint; whoever is told that
the socket would block waits with `wait_writable` and goes on where the last send stopped.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from notifyd.errors import StreamBroken

RECEIVE_BYTES = 64 * 1024
"""One read: large enough that a burst of requests costs one system call."""

LINGER_BYTES = 1024 * 1024
"""What is read and thrown away after our end of the stream was closed; a peer that sends more is cut off."""


class ByteStream(Protocol):
    """A full-duplex stream of bytes with a non-blocking sending side.

    One task receives; sending is for whoever holds the connection's outbox. Every method but `close` raises
    StreamBroken when the connection failed.
    """

    peer: str
    local: str

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for bytes and return them, b"" at the end of the stream. Cancelled, no byte is lost."""

    def send_now(self, data: bytes | memoryview) -> int:
        """Take as many bytes as can be taken without waiting; return how many, 0 when it would block."""

    @property
    def has_unsent(self) -> bool:
        """Whether taken bytes are still held on this side: `send_now(b"")` after `wait_writable` moves them on."""

    async def wait_writable(self) -> None:
        """Wait until `send_now` can make progress."""

    async def finish(self, deadline_s: float) -> None:
        """End the stream in order: announce the end, let the peer read what was sent, close within `deadline_s`."""

    def close(self) -> None:
        """Close at once. Tasks waiting on the stream get StreamBroken; closing twice does nothing."""


class SocketStream:
    """A ByteStream over a connected stdlib socket, which it owns from here on. `close` calls `on_closed`, once."""

    __slots__ = ("_may_hold_more", "_socket", "local", "on_closed", "peer")

    has_unsent = False

    def __init__(self, connected: socket.socket, peer: str = "", local: str = "") -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._may_hold_more = True
        self.peer = peer
        self.local = local
        self.on_closed: Callable[[], None] | None = None

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for bytes; see ByteStream. Always a checkpoint."""
        data: bytes | None = None
        try:
            if self._may_hold_more:
                await trio.lowlevel.checkpoint_if_cancelled()
                data = self._receive_now(max_bytes)
                if data is not None:
                    await trio.lowlevel.cancel_shielded_checkpoint()
            while data is None:
                await trio.lowlevel.wait_readable(self._socket)
                data = self._receive_now(max_bytes)
        except (OSError, trio.ClosedResourceError) as failure:
            raise StreamBroken(str(failure)) from None
        # What did not fill its room emptied the socket: to ask again at once is a system call for nothing.
        self._may_hold_more = len(data) == max_bytes
        return data

    def _receive_now(self, max_bytes: int) -> bytes | None:
        try:
            return self._socket.recv(max_bytes)
        except BlockingIOError:
            return None

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes; see ByteStream."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as failure:
            raise StreamBroken(str(failure)) from None

    async def wait_writable(self) -> None:
        """Wait until the kernel takes bytes again."""
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except (OSError, ValueError, trio.ClosedResourceError) as failure:
            raise StreamBroken(str(failure)) from None

    async def finish(self, deadline_s: float) -> None:
        """Send FIN, read away what still comes so that no reset destroys our last bytes at the peer, close."""
        try:
            with trio.move_on_after(deadline_s), contextlib.suppress(StreamBroken, OSError):
                self._socket.shutdown(socket.SHUT_WR)
                left_bytes = LINGER_BYTES
                while left_bytes > 0 and (data := await self.receive_some()):
                    left_bytes -= len(data)
        finally:
            self.close()

    def close(self) -> None:
        """Close at once; see ByteStream."""
        # A task may wait on this socket: it is to be told, not left with a descriptor that soon is somebody else's.
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._may_hold_more = True  # the next read is to fail: of a closed socket Trio would wait for ever
            if self.on_closed is not None:
                self.on_closed()
