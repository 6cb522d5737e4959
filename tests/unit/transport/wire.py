"""Stand-ins for the two ends of a connection: a socket that takes what it is told to, and a TLS client without I/O."""

import contextlib
import ssl

import trio
import trio.testing

from notifyd.errors import StreamBroken
from notifyd.transport.tls import TlsStream


class Wire:
    """A ByteStream in memory. `room_bytes` is what it still takes; None takes everything."""

    def __init__(self, room_bytes: int | None = None) -> None:
        self.peer = "peer"
        self.local = "local"
        self.has_unsent = False
        self.sent = bytearray()
        self.room_bytes = room_bytes
        self.finished_within_s: float | None = None
        self.closed = False
        self.send_fails = False
        self._received = bytearray()
        self._ended = False
        self._changed = trio.Event()

    def deliver(self, data: bytes, *, end: bool = False) -> None:
        """Let the stream under test receive this, and perhaps the end."""
        self._received += data
        self._ended = self._ended or end
        self._change()

    def make_room(self, room_bytes: int | None) -> None:
        """Take so much more."""
        self.room_bytes = room_bytes
        self._change()

    def take_sent(self) -> bytes:
        """What was sent since the last call."""
        sent, self.sent = bytes(self.sent), bytearray()
        return sent

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._received and not self._ended and not self.closed:
            await self._changed.wait()
        if self.closed:
            raise StreamBroken("closed")
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        if self.closed or self.send_fails:
            raise StreamBroken("closed")
        taken = len(data) if self.room_bytes is None else min(len(data), self.room_bytes)
        if self.room_bytes is not None:
            self.room_bytes -= taken
        self.sent += data[:taken]
        return taken

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.room_bytes == 0:
            await self._changed.wait()

    async def finish(self, deadline_s: float) -> None:
        await trio.lowlevel.checkpoint()
        self.finished_within_s = deadline_s
        self.close()

    def close(self) -> None:
        self.closed = True
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class TlsClient:
    """The client's end of TLS: bytes in, bytes out. `ended` once the server's close_notify came."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.ended = False

    def shake_hands(self, received: bytes = b"") -> bytes:
        """Go on with the handshake; return what must be sent."""
        self._incoming.write(received)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        """Return the ciphertext to send."""
        if data:
            self.tls.write(data)
        return self._outgoing.read()

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return the plaintext of what arrived so far."""
        self._incoming.write(ciphertext)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.tls.read(65536):
                parts.append(part)
            self.ended = True
        return b"".join(parts)

    def close(self) -> bytes:
        """Return close_notify, and what was still to be sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()


class Pair:
    """A server's TlsStream after its handshake, its wire, and the client."""

    def __init__(self, stream: TlsStream, wire: Wire, client: TlsClient) -> None:
        self.stream = stream
        self.wire = wire
        self.client = client

    def arrived(self) -> bytes:
        """The plaintext that the client can read by now."""
        return self.client.decrypt(self.wire.take_sent())


async def handshake(server: ssl.SSLContext, client: TlsClient) -> Pair:
    """Connect the two; raises what the handshake of either side raises."""
    wire = Wire()
    stream = TlsStream(wire, server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.handshake)
        wire.deliver(client.shake_hands())
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if not nursery.child_tasks:
                break
            wire.deliver(client.shake_hands(wire.take_sent()))
    client.shake_hands(wire.take_sent())
    return Pair(stream, wire, client)
