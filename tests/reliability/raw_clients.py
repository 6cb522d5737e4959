"""Clients that know the wire and nothing of our code: bytes in, bytes out, no manners of their own."""

import json
import ssl
import struct
from typing import Any, Self
from weakref import WeakSet

import trio

HEARTBEAT_BYTES = 16
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(opcode: int, payload: bytes, *, final: bool = True, announced: int | None = None) -> bytes:
    """A client's WebSocket frame; `announced` lies about its length."""
    size = len(payload) if announced is None else announced
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def heartbeat(kind: int, timestamp: int) -> bytes:
    return struct.pack("!4sBQ3s", b"HEAR", kind, timestamp, b"\0\0\0")


def data_frame(message: Any) -> bytes:
    payload = json.dumps(message).encode()
    return struct.pack("!4sBQ", b"HEAR", 2, 0) + len(payload).to_bytes(3, "big") + payload


_open: "WeakSet[RawSocket]" = WeakSet()


def let_go_of_all() -> None:
    """Close every client that is still open: a node that stops waits for the peers that do not."""
    for socket in list(_open):
        socket.close()


class RawSocket:
    """A TCP connection, perhaps with TLS over it (`stream`), and a read buffer."""

    def __init__(self, tcp: trio.SocketStream, stream: trio.abc.Stream | None = None) -> None:
        self.tcp = tcp
        self.stream = stream or tcp
        self.buffer = b""
        self._socket = tcp.socket._sock
        _open.add(self)

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        receive_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
    ) -> Self:
        """Connect from `source`, an address of loopback; `receive_bytes` is how much the kernel takes in for a client
        that does not read."""
        connecting = trio.socket.socket()
        if receive_bytes is not None:
            connecting.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_bytes)
        try:
            if source != "127.0.0.1":
                await connecting.bind((source, 0))
            await connecting.connect(("127.0.0.1", port))
        except OSError:
            connecting.close()
            raise
        tcp = trio.SocketStream(connecting)
        if tls is None:
            return cls(tcp)
        encrypted = trio.SSLStream(tcp, tls, server_hostname="127.0.0.1", https_compatible=True)
        opened = cls(tcp, encrypted)
        await encrypted.do_handshake()
        return opened

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes; EOFError when the peer ends before."""
        while len(self.buffer) < size:
            await self._receive()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def read_to(self, mark: bytes) -> bytes:
        """All up to the first `mark`, which is included; EOFError when the peer ends before."""
        while mark not in self.buffer:
            await self._receive()
        return await self.read(self.buffer.index(mark) + len(mark))

    async def read_rest(self) -> bytes:
        """All that comes until the peer ends."""
        try:
            while True:
                await self._receive()
        except EOFError:
            return await self.read(len(self.buffer))

    async def _receive(self) -> None:
        data = await self.stream.receive_some(262144)
        if not data:
            raise EOFError
        self.buffer += data

    async def wait_closed(self) -> None:
        """Read and throw away until the peer is gone."""
        try:
            while await self.stream.receive_some(262144):
                pass
        except trio.BrokenResourceError:
            pass

    def close(self) -> None:
        self.tcp.socket.close()

    def __del__(self) -> None:
        self._socket.close()  # a test that is through with a client just lets go of it, also after Trio has ended


class RawWebSocket(RawSocket):
    """A WebSocket client."""

    async def upgrade(self, request: bytes = UPGRADE) -> bytes:
        await self.send(request)
        return await self.read_to(b"\r\n\r\n")

    async def frame(self) -> tuple[int, bytes]:
        """The next frame from the server: opcode and payload."""
        first, size = await self.read(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.read(8))
        return first & 0x0F, await self.read(size)

    async def close_code(self, *, silent: bool = False) -> int | None:
        """Read on until the Close frame; its code, or None when the connection ended without one.

        Then end the connection, unless the client is to stay silent.
        """
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big")
        except (EOFError, trio.BrokenResourceError):
            return None
        finally:
            if not silent:
                self.close()

    async def request(self, message: Any) -> Any:
        await self.send(masked(1, json.dumps(message).encode()))
        return json.loads((await self.frame())[1])

    @classmethod
    async def connected(cls, port: int, *topics: str) -> "RawWebSocket":
        socket = await cls.open(port)
        assert b" 101 " in await socket.upgrade()
        assert (await socket.request({"op": "connect", "id": 1}))["op"] == "connected"
        for topic in topics:
            assert (await socket.request({"op": "subscribe", "id": 2, "topic": topic}))["op"] == "subscribed"
        return socket


class RawDevice(RawSocket):
    """A device link that speaks JSON frames."""

    async def frame(self) -> tuple[int, int, Any]:
        """The next frame: type, timestamp and message (None for a heartbeat)."""
        kind, timestamp, payload = await self._raw_frame()
        return kind, timestamp, json.loads(payload) if payload else None

    async def payload(self) -> bytes:
        """The next frame's payload as it came; b"" for a heartbeat."""
        return (await self._raw_frame())[2]

    async def _raw_frame(self) -> tuple[int, int, bytes]:
        magic, kind, timestamp, reserved = struct.unpack("!4sBQ3s", await self.read(HEARTBEAT_BYTES))
        assert magic == b"HEAR"
        return kind, timestamp, await self.read(int.from_bytes(reserved, "big")) if kind > 1 else b""

    async def message(self) -> Any:
        """The next message, heartbeats passed over."""
        while (frame := await self.frame())[0] < 2:
            pass
        return frame[2]

    async def request(self, message: Any) -> Any:
        await self.send(data_frame(message))
        return await self.message()

    async def error_code(self) -> int | None:
        """Read on until the end; the code of the `error` push before it, if there was one."""
        code = None
        try:
            while True:
                message = (await self.frame())[2]
                if message is not None and message["op"] == "error" and "id" not in message:
                    code = message["code"]
        except (EOFError, trio.BrokenResourceError):
            return code
        finally:
            self.close()

    @classmethod
    async def connected(cls, port: int, *topics: str, receive_bytes: int | None = None) -> "RawDevice":
        device = await cls.open(port, receive_bytes=receive_bytes)
        assert (await device.request({"op": "connect", "id": 1}))["op"] == "connected"
        for topic in topics:
            assert (await device.request({"op": "subscribe", "id": 2, "topic": topic}))["op"] == "subscribed"
        return device
