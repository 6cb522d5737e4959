"""Clients for tests: they speak the wire by hand, over any ByteStream, and see everything the server sends.

    client = DeviceClient(stream, "msgpack")
    await client.connect()
    reply = await client.ask("subscribe", topic="a:b")        # the reply; what came before it is in `client.pushes`
    message = await client.next_push()
    await client.send_data(b"raw bytes")                      # whatever a stranger might send
    assert await client.end() == (4000, "protocol_error")     # reads all that is left, tells how the server ended it

The encoding of what a client sends is free for every message: `client.send(message, encoding="json")`. Heartbeats are
kept in `heartbeats`; with `answers_pings` a PING of the server is answered at once. Nothing here uses the code that
encodes or frames on the server's side, but for `protocol.codec` on the device link.
"""

import base64
import json
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from notifyd.errors import StreamBroken
from notifyd.transport.stream import ByteStream
from protocol.codec import Frame, FrameDecoder, FrameType, encode_frame, encode_heartbeat
from tests.unit.transport.client_frames import BINARY, CLOSE, PING, PONG, TEXT, frame

KEY = base64.b64encode(bytes(range(16))).decode()


class Ended(NamedTuple):
    """How the server ended a connection: the close code and its word; None where TCP ended without a last word."""

    code: int | None
    reason: str | None


class Refused(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, headers: dict[str, str], body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """What both transports have in common. `encoding` is "json" or "msgpack"."""

    transport = ""

    def __init__(self, stream: ByteStream, encoding: str) -> None:
        self.stream = stream
        self.encoding = encoding
        self.pushes: deque[dict[str, Any]] = deque()
        self.heartbeats: list[tuple[FrameType, int]] = []
        self.answers_pings = False
        self.session = ""
        self.ended: Ended | None = None
        self._last_id = 0
        self._arrived: deque[dict[str, Any]] = deque()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send_data(self, data: bytes) -> None:
        """Send bytes as they are. Raises StreamBroken."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.stream.send_now(rest) :]
            if rest:
                await self.stream.wait_writable()

    async def send(self, message: dict[str, Any], encoding: str | None = None) -> None:
        """Send one message."""
        await self.send_data(self.written(message, encoding))

    async def send_heartbeat(self, kind: FrameType, timestamp_ms: int) -> None:
        """Send a PING or PONG."""
        await self.send_data(self.wrapped(encode_heartbeat(kind, timestamp_ms)))

    def written(self, message: dict[str, Any], encoding: str | None = None) -> bytes:
        """Return the bytes that carry a message on this transport."""
        raise NotImplementedError

    def wrapped(self, frames: bytes) -> bytes:
        """Return the bytes that carry frames on this transport."""
        raise NotImplementedError

    # --- asking -------------------------------------------------------------------------------------------------------

    def next_id(self) -> int:
        """Return a new request id."""
        self._last_id += 1
        return self._last_id

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return its reply, an error too. What comes before the reply goes to `pushes`."""
        request = {"op": op, "id": self.next_id(), **fields}
        await self.send(request)
        return await self.reply(request["id"])

    async def reply(self, request_id: int) -> dict[str, Any]:
        """Return the reply with this id. Raises EOFError when the connection ends before it."""
        while True:
            message = await self.receive()
            if message.get("id") == request_id:
                return message
            self.pushes.append(message)

    async def connect(self, **fields: Any) -> dict[str, Any]:
        """Send `connect`, return the answer and remember the session."""
        reply = await self.ask("connect", **fields)
        self.session = reply.get("session", "")
        return reply

    async def next_push(self) -> dict[str, Any]:
        """Return the next message that answers nothing."""
        return self.pushes.popleft() if self.pushes else await self.receive()

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """Return the next message. Raises EOFError when the server ended the connection; `ended` says how."""
        while not self._arrived:
            if self.ended is not None:
                raise EOFError(self.ended)
            try:
                data = await self.stream.receive_some()
            except StreamBroken:
                data = b""
            if data:
                await self._take(data)
            else:
                self.ended = self._judge_end()
        return self._arrived.popleft()

    async def end(self) -> Ended:
        """Read everything until the server ended the connection; the messages go to `pushes`."""
        try:
            while True:
                self.pushes.append(await self.receive())
        except EOFError:
            assert self.ended is not None
            return self.ended

    async def end_anyhow(self) -> None:
        """Read everything until the connection is over, however it ends: also inside a frame."""
        with suppress(StreamBroken):
            while await self.stream.receive_some():
                pass

    async def _take(self, data: bytes) -> None:
        raise NotImplementedError

    def _judge_end(self) -> Ended:
        raise NotImplementedError

    async def _take_frame(self, arrived: Frame) -> None:
        if arrived.type is FrameType.JSON:
            self._arrived.append(json.loads(arrived.payload))
        elif arrived.type is FrameType.MSGPACK:
            assert isinstance(arrived.payload, bytes)
            self._arrived.append(msgspec.msgpack.decode(arrived.payload))
        else:
            self.heartbeats.append((arrived.type, arrived.timestamp_ms))
            if self.answers_pings and arrived.type is FrameType.PING:
                await self.send_heartbeat(FrameType.PONG, arrived.timestamp_ms)


class DeviceClient(Client):
    """A device link."""

    transport = "device"

    def __init__(self, stream: ByteStream, encoding: str = "json") -> None:
        super().__init__(stream, encoding)
        self._decoder = FrameDecoder(2**24 - 1)
        self._last: dict[str, Any] = {}

    def written(self, message: dict[str, Any], encoding: str | None = None) -> bytes:
        return framed(message, encoding or self.encoding)

    def wrapped(self, frames: bytes) -> bytes:
        return frames

    async def _take(self, data: bytes) -> None:
        self._decoder.receive(data)
        while (arrived := self._decoder.next_frame()) is not None:
            await self._take_frame(arrived)
            if arrived.type >= FrameType.JSON:
                self._last = self._arrived[-1]

    def _judge_end(self) -> Ended:
        assert not self._decoder.buffered_bytes, "the server ended the stream inside a frame"
        if self._last.get("op") == "error" and "id" not in self._last and self._last["code"] >= 1000:
            return Ended(self._last["code"], self._last["reason"])
        return Ended(None, None)


class WebSocketClient(Client):
    """A WebSocket client. `upgrade` comes first. `controls` has every Ping and Pong of RFC 6455 that arrived."""

    transport = "websocket"

    def __init__(self, stream: ByteStream, encoding: str = "json") -> None:
        super().__init__(stream, encoding)
        self.controls: list[tuple[int, bytes]] = []
        self.subprotocol: str | None = None
        self.closed: tuple[int, str] | None = None
        self._buffer = bytearray()

    def written(self, message: dict[str, Any], encoding: str | None = None) -> bytes:
        encoding = encoding or self.encoding
        if encoding == "json":
            return frame(TEXT, json.dumps(message).encode())
        return frame(BINARY, framed(message, encoding))

    def wrapped(self, frames: bytes) -> bytes:
        return frame(BINARY, frames)

    async def upgrade(self, target: str = "/ws", *, trailing: bytes = b"", **headers: str) -> None:
        """Perform the handshake; `trailing` is sent in the same piece. Raises Refused, and EOFError without answer."""
        await self.send_data(self.request(target, **headers) + trailing)
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError("no answer to the upgrade")
            self._buffer += data
        end = self._buffer.index(b"\r\n\r\n")
        status_line, *lines = self._buffer[:end].decode().split("\r\n")
        del self._buffer[: end + 4]
        answer = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(status_line.split(" ")[1])
        if status != 101:
            raise Refused(status, answer, await self._body(int(answer["content-length"])))
        self.subprotocol = answer.get("sec-websocket-protocol")
        await self._take(b"")

    def request(self, target: str, **headers: str) -> bytes:
        """Return an upgrade request; a header's name is given with `_` for `-`, "" leaves a usual one out."""
        lines = {
            "Host": "memory",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        if self.encoding == "msgpack":
            lines["Sec-WebSocket-Protocol"] = "notifyd.v1.msgpack"
        lines.update({name.replace("_", "-"): value for name, value in headers.items()})
        text = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items() if value), "", ""]
        return "\r\n".join(text).encode()

    async def _body(self, length: int) -> Any:
        while len(self._buffer) < length:
            data = await self.stream.receive_some()
            assert data, "the body was cut"
            self._buffer += data
        return json.loads(self._buffer[:length])

    async def send_ping(self, payload: bytes = b"") -> None:
        await self.send_data(frame(PING, payload))

    async def send_close(self, code: int = 1000, reason: str = "") -> None:
        await self.send_data(frame(CLOSE, code.to_bytes(2, "big") + reason.encode()))

    async def _take(self, data: bytes) -> None:
        self._buffer += data
        while (taken := server_frame(self._buffer)) is not None:
            opcode, payload, size_bytes = taken
            del self._buffer[:size_bytes]
            await self._take_websocket_frame(opcode, payload)

    async def _take_websocket_frame(self, opcode: int, payload: bytes) -> None:
        assert self.closed is None, "the server sent a frame behind its Close"
        if opcode == TEXT:
            self._arrived.append(json.loads(payload))
        elif opcode == BINARY:
            decoder = FrameDecoder(2**24 - 1)
            decoder.receive(payload)
            arrived = decoder.next_frame()
            assert arrived is not None
            assert not decoder.buffered_bytes, "the server sends one frame a message"
            await self._take_frame(arrived)
        elif opcode == CLOSE:
            self.closed = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
        else:
            assert opcode in (PING, PONG), f"the server sent opcode {opcode}"
            self.controls.append((opcode, payload))

    def _judge_end(self) -> Ended:
        assert not self._buffer, "the server ended the stream inside a frame"
        return Ended(None, None) if self.closed is None else Ended(*self.closed)


def framed(message: dict[str, Any], encoding: str) -> bytes:
    """Write a message as a frame of type 2 or 3."""
    if encoding == "json":
        return encode_frame(FrameType.JSON, json.dumps(message).encode())
    return encode_frame(FrameType.MSGPACK, msgspec.msgpack.encode(message))


def server_frame(data: bytearray) -> tuple[int, bytes, int] | None:
    """Return opcode, payload and size of the frame at the beginning, None while it is not all there."""
    if len(data) < 2:
        return None
    assert data[0] & 0xF0 == 0x80, "the server sends whole messages, without extensions"
    assert not data[1] & 0x80, "the server does not mask"
    length, start = data[1], 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    stop = start + length
    return (data[0] & 15, bytes(data[start:stop]), stop) if len(data) >= stop else None
