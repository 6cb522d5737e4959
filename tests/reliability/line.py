"""A client's connection on either transport, for tests with many of them: one message at a time, nothing kept back.

It knows the wire and nothing of our code; it answers what keeps a connection alive and forgives nothing else.
"""

import json
import re
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import trio

from tests.reliability.raw_clients import UPGRADE, data_frame, heartbeat, masked

Transport = Literal["device", "websocket"]
RECEIVE_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class LineLost(Exception):
    """The connection is over; `code` is notifyd's or HTTP's, where the server said one, and when to come again."""

    def __init__(self, code: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after_s = retry_after_s


class Line:
    """An open connection; `welcome` is the answer to `connect`. Belongs to one task; any other may `cut` it.

    Raises LineLost.
    """

    def __init__(self, stream: trio.SocketStream, transport: Transport) -> None:
        self.transport = transport
        self.close_code: int | None = None
        self.retry_after_s = 0.0
        self.welcome: dict[str, Any] = {}
        self._stream = stream
        self._buffer = bytearray()
        self._messages: deque[dict[str, Any]] = deque()
        self._answers = b""
        self._parse = self._device_messages if transport == "device" else self._websocket_messages

    @classmethod
    async def open(cls, port: int, transport: Transport) -> "Line":
        """Connect, and shake hands."""
        connecting = trio.socket.socket()
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await connecting.connect(("127.0.0.1", port))
        except OSError:
            connecting.close()
            raise LineLost from None
        except BaseException:
            connecting.close()
            raise
        line = cls(trio.SocketStream(connecting), transport)
        try:
            if transport == "websocket":
                await line._upgrade()
        except BaseException:
            line.close()
            raise
        return line

    @classmethod
    async def connected(cls, port: int, transport: Transport, **fields: Any) -> "Line":
        """Open a connection, and become a client of the node."""
        line = await cls.open(port, transport)
        try:
            line.welcome = await line.ask({"op": "connect", "id": 1, **fields})
            assert line.welcome["op"] == "connected", line.welcome
        except BaseException:
            line.close()
            raise
        return line

    async def _upgrade(self) -> None:
        await self._send(UPGRADE)
        while b"\r\n\r\n" not in self._buffer:
            await self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            again = re.search(rb"\r\nretry-after: *([0-9.]+)", head.lower())
            raise LineLost(int(head.split(b" ")[1]), float(again[1]) if again else 0.0)

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send messages in one piece."""
        if self.transport == "device":
            await self._send(b"".join(map(data_frame, messages)))
        else:
            await self._send(b"".join(masked(1, json.dumps(message).encode()) for message in messages))

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a request; its reply. Pushes before it are kept for `next`."""
        await self.send(message)
        pushes = []
        while (reply := await self.next()).get("id") != message["id"]:
            pushes.append(reply)
        self._messages.extendleft(reversed(pushes))
        return reply

    async def next(self) -> dict[str, Any]:
        """The next message. A device link's last `error` is told as the LineLost that follows."""
        while not self._messages:
            await self._receive()
            self._messages.extend(self._parse())
            if self._answers:
                answers, self._answers = self._answers, b""
                await self._send(answers)
        return self._messages.popleft()

    def cut(self) -> None:
        """End it as a broken network does: reset."""
        if self._stream.socket.fileno() >= 0:
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._stream.socket.close()

    def close(self) -> None:
        self._stream.socket.close()

    # --- bytes --------------------------------------------------------------------------------------------------------

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineLost(self.close_code, self.retry_after_s) from None

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineLost(self.close_code, self.retry_after_s) from None
        if not data:
            self.close()
            raise LineLost(self.close_code, self.retry_after_s)
        self._buffer += data

    def _device_messages(self) -> Iterator[dict[str, Any]]:
        at, buffer = 0, self._buffer
        while len(buffer) - at >= 16:
            kind, timestamp = struct.unpack_from("!BQ", buffer, at + 4)
            end = at + 16 + (int.from_bytes(buffer[at + 13 : at + 16], "big") if kind > 1 else 0)
            if len(buffer) < end:
                break
            if kind == 0:
                self._answers += heartbeat(1, timestamp)
            elif kind > 1:
                message = _decode(buffer[at + 16 : end])
                if message["op"] == "error" and "id" not in message:
                    self.close_code, self.retry_after_s = message["code"], message.get("retry_after", 0.0)
                else:
                    yield message
            at = end
        del buffer[:at]

    def _websocket_messages(self) -> Iterator[dict[str, Any]]:
        at, buffer = 0, self._buffer
        while len(buffer) - at >= 2:
            head, size = 2, buffer[at + 1]
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(buffer[at + 2 : at + head], "big")
            end = at + head + size
            if len(buffer) < max(end, at + head):
                break
            opcode, payload = buffer[at] & 0x0F, bytes(buffer[at + head : end])
            at = end
            if opcode == 1:
                yield _decode(payload)
            elif opcode == 2 and payload[4] == 0:
                self._answers += masked(2, heartbeat(1, int.from_bytes(payload[5:13], "big")))
            elif opcode == 9:
                self._answers += masked(10, payload)
            elif opcode == 8:
                self.close_code = int.from_bytes(payload[:2], "big")
        del buffer[:at]
