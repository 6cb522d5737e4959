"""A connection without a socket: two ends in memory, each a `notifyd.transport.stream.ByteStream`.

What a kernel does to a server is here as plain calls: a peer that reads slowly (a small `capacity_bytes`), takes a few
bytes at a time (`most_bytes_a_send`), stops reading, ends only its sending side, leaves, or resets the connection.

    server, client = memory_pair(capacity_bytes=100)
    server.send_now(b"x" * 150)      # 100: the peer's buffer holds no more
    await client.receive_some(30)    # 30 bytes; from now on 30 more can be sent
    client.reset()                   # the server's next call raises StreamBroken

Both ends are the same class, so a test's client may use every method too. Nothing here looks at a clock but `finish`.
"""

from collections.abc import Callable

import trio

from notifyd.errors import StreamBroken
from notifyd.transport.stream import RECEIVE_BYTES

CAPACITY_BYTES = 64 * 1024


class _Pipe:
    """One direction: bytes sent and not yet received, at most `capacity_bytes`."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.buffer = bytearray()
        self.ended = False
        self.broken = False
        self.changed = trio.lowlevel.ParkingLot()

    def set(self, *, ended: bool = False, broken: bool = False) -> None:
        self.ended |= ended
        self.broken |= broken
        if broken:
            self.buffer.clear()
        self.changed.unpark_all()


class MemoryStream:
    """One end of a connection in memory. `sends` has the size of every send that took something, in order."""

    has_unsent = False

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, peer: str, local: str) -> None:
        self.peer = peer
        self.local = local
        self.closed = False
        self.most_bytes_a_send: Callable[[], int] | None = None
        self.sends: list[int] = []
        self._incoming = incoming
        self._outgoing = outgoing

    # --- ByteStream ---------------------------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for bytes, b"" at the end. Always a checkpoint; cancelled, no byte is lost."""
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._take(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        while data is None:
            await self._incoming.changed.park()
            data = self._take(max_bytes)
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        """Take what the peer's buffer holds, and no more than `most_bytes_a_send()` says."""
        if self.closed or self._outgoing.broken or self._outgoing.ended:
            raise StreamBroken("the memory stream is closed")
        room_bytes = self._outgoing.capacity_bytes - len(self._outgoing.buffer)
        if self.most_bytes_a_send is not None:
            room_bytes = min(room_bytes, self.most_bytes_a_send())
        taken = bytes(data[:room_bytes])
        if taken:
            self._outgoing.buffer += taken
            self._outgoing.changed.unpark_all()
            self.sends.append(len(taken))
        return len(taken)

    async def wait_writable(self) -> None:
        """Wait until the peer's buffer has room."""
        await trio.lowlevel.checkpoint()
        pipe = self._outgoing
        while True:
            if self.closed or pipe.broken:
                raise StreamBroken("the memory stream is closed")
            if len(pipe.buffer) < pipe.capacity_bytes:
                return
            await pipe.changed.park()

    async def finish(self, deadline_s: float) -> None:
        """End the sending side, read until the peer ended too, close."""
        try:
            self.end()
            with trio.move_on_after(deadline_s):
                while await self.receive_some():
                    pass
        except StreamBroken:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close at once. Bytes that nobody received here reset the connection, as TCP does it."""
        if self.closed:
            return
        self.closed = True
        unread = bool(self._incoming.buffer)
        self._incoming.set(broken=True)
        self._outgoing.set(ended=True, broken=unread)

    # --- what only tests do -------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the sending side only: the peer receives the end behind what was sent (TCP: FIN)."""
        if self.closed or self._outgoing.broken:
            raise StreamBroken("the memory stream is closed")
        self._outgoing.set(ended=True)

    def reset(self) -> None:
        """Break the connection both ways, with everything under way lost (TCP: RST)."""
        self.closed = True
        self._incoming.set(broken=True)
        self._outgoing.set(broken=True)

    def _take(self, max_bytes: int) -> bytes | None:
        pipe = self._incoming
        if self.closed or pipe.broken:
            raise StreamBroken("the memory stream is closed, or was reset")
        if pipe.buffer:
            data = bytes(pipe.buffer[:max_bytes])
            del pipe.buffer[:max_bytes]
            pipe.changed.unpark_all()
            return data
        return b"" if pipe.ended else None


def memory_pair(
    capacity_bytes: int = CAPACITY_BYTES, *, client_capacity_bytes: int | None = None, peer: str = "memory:1"
) -> tuple[MemoryStream, MemoryStream]:
    """Return the server's and the client's end.

    `capacity_bytes` is what the client's buffer holds of what the server sends, `client_capacity_bytes` the other way
    (as much, unless given).
    """
    to_client = _Pipe(capacity_bytes)
    to_server = _Pipe(client_capacity_bytes or CAPACITY_BYTES)
    server = MemoryStream(to_server, to_client, peer=peer, local="memory:0")
    client = MemoryStream(to_client, to_server, peer="memory:0", local=peer)
    return server, client
