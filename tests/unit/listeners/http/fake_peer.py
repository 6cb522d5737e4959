"""A peer of an HTTP connection in virtual time."""

import trio

from notifyd.errors import StreamBroken


class FakePeer:
    """A stream whose peer sends these pieces, each after so many seconds, and takes `takes_bytes` of what is sent.

    After the last piece it says nothing more, or with `leaves` it ends its side.
    """

    peer = "127.0.0.1:40000"
    local = ""
    has_unsent = False

    def __init__(self, pieces: list[tuple[float, bytes]], *, takes_bytes: int = 10**9, leaves: bool = False) -> None:
        self.pieces = pieces
        self.left_bytes = takes_bytes
        self.leaves = leaves
        self.sent = b""
        self.closed_at_s: float | None = None

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        if not self.pieces and self.leaves:
            await trio.lowlevel.checkpoint()
            return b""
        await trio.sleep(self.pieces[0][0] if self.pieces else float("inf"))
        return self.pieces.pop(0)[1]

    def send_now(self, data: bytes | memoryview) -> int:
        if self.left_bytes < 0:
            raise StreamBroken("gone")
        taken = bytes(data[: self.left_bytes])
        self.left_bytes -= len(taken)
        self.sent += taken
        return len(taken)

    async def wait_writable(self) -> None:
        await trio.sleep_forever()

    async def finish(self, deadline_s: float) -> None:
        await trio.sleep(deadline_s)

    def close(self) -> None:
        if self.closed_at_s is None:
            self.closed_at_s = trio.current_time()
