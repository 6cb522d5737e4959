"""The service manager's end of sd_notify(3): a socket, and what a process says there.

with NotifySocket("/run/test/notify") as manager:          # or "@test" for an abstract one
    ...
    assert await manager.wait_for("READY") == "1"
"""

import contextlib
import socket
import struct
from typing import Self

import trio

WAIT_S = 20.0
DATAGRAM_BYTES = 4096
CREDENTIALS = struct.Struct("3i")


class NotifySocket:
    """Hears datagrams in order; each is a dictionary of its fields. `senders` are the processes that sent them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.senders: set[int] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def hear(self) -> dict[str, str]:
        """Wait for the next datagram."""
        with trio.fail_after(WAIT_S):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return self._hear_now()
                await trio.lowlevel.wait_readable(self._socket)

    async def wait_for(self, field: str) -> str:
        """Wait for the next datagram with this field; its value."""
        while field not in (heard := await self.hear()):
            pass
        return heard[field]

    def forget(self) -> int:
        """Forget what was not heard yet; return how many datagrams that were."""
        forgotten = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hear_now()
                forgotten += 1
        return forgotten

    def _hear_now(self) -> dict[str, str]:
        text, control, _, _ = self._socket.recvmsg(DATAGRAM_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
        (content,) = [
            data for level, kind, data in control if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        self.senders.add(CREDENTIALS.unpack(content)[0])
        return dict(line.split("=", 1) for line in text.decode().split("\n"))
