"""A server that does what a test says, frame by frame, speaking through protocol/ over in-memory streams.

It accepts, answers heartbeats while it is `awake`, and hands every request to the test; everything else (what to
answer, when to be silent, how to end) is the test's.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import trio
from msgspec import UNSET
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from notifyd.client import Client, open_client
from protocol.codec import Frame, FrameDecoder, FrameType, encode_frame, encode_heartbeat, frames_of_message
from protocol.errors import CloseCode
from protocol.framing import Encoding
from protocol.messages import (
    Ack,
    Connect,
    Connected,
    Error,
    Message,
    Request,
    Restored,
    ServerMessage,
    Subscribe,
    Subscribed,
    Unsubscribe,
    decode_request,
    encode,
)
from protocol.position import Position

KINDS = ("device", "ws-json", "ws-msgpack")
EPOCH = "e1"
HANDSHAKE_S = 5.0

_FRAME_TYPES = {Encoding.JSON: FrameType.JSON, Encoding.MSGPACK: FrameType.MSGPACK}
_SUBPROTOCOLS = {"ws-json": "notifyd.v1.json", "ws-msgpack": "notifyd.v1.msgpack"}

Wanted = TypeVar("Wanted", bound=Request)


class Peer:
    """The server's end of one connection."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.awake = True
        self.hello: Connect | None = None
        self.pings: list[float] = []
        self.pongs: list[int] = []
        self.acks: list[Ack] = []
        self.unsubscribed: list[str] = []
        self.gone = trio.Event()
        self._put, self._requests = trio.open_memory_channel[Request](1000)

    # --- what a test says --------------------------------------------------------------------------------------------

    async def expect(self, kind: type[Wanted]) -> Wanted:
        """Wait for the next request (acknowledgements and `unsubscribe` are only noted); it must be of this kind."""
        request = await self.take_request()
        assert isinstance(request, kind), request
        return request

    async def take_request(self) -> Request:
        """Wait for the next request of any kind."""
        return await self._requests.receive()

    async def nothing_comes(self) -> None:
        """Fail when a request comes before everybody waits."""
        await trio.testing.wait_all_tasks_blocked()
        assert self._requests.statistics().current_buffer_used == 0

    async def welcome(self, session: str = "s1", **fields: Any) -> Connect:
        """Wait for `connect` and answer it."""
        self.hello = request = await self.expect(Connect)
        defaults = {"resumed": False, "user": "ada", "node": "n1", "heartbeat": request.heartbeat or 30.0}
        await self.send(Connected(id=request.id, session=session, **{**defaults, **fields}))
        return request

    async def admit(self, offset: int | None = 0, recovered: bool | None = None, epoch: str = EPOCH) -> Subscribe:
        """Wait for `subscribe` and answer it; the topic has no history where `offset` is None."""
        request = await self.expect(Subscribe)
        reply = Subscribed(id=request.id, topic=request.topic)
        if offset is not None:
            reply.epoch, reply.offset = epoch, offset
        if recovered is not None:
            reply.recovered = recovered
        await self.send(reply)
        return request

    async def push(self, *offsets: int, topic: str = "a", epoch: str = EPOCH) -> None:
        """Push messages whose data is their offset."""
        for offset in offsets:
            await self.send(Message(topic=topic, data=offset, time=1, epoch=epoch, offset=offset))

    async def refuse(self, request: Request, code: int, retry_after: float | None = None) -> None:
        """Answer with an error."""
        later = UNSET if retry_after is None else retry_after
        await self.send(Error(code=code, reason="r", message="refused", id=request.id or UNSET, retry_after=later))

    async def send(self, message: ServerMessage) -> None:
        """Send a message in the connection's encoding."""
        await self.send_frame(Frame(_FRAME_TYPES[self.encoding], 0, encode(message, self.encoding)))

    async def send_frame(self, frame: Frame) -> None:
        raise NotImplementedError

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that need not be a frame; nothing happens when the client is gone."""
        raise NotImplementedError

    async def end(self, code: CloseCode | None = None) -> None:
        """End the connection: with a code as the protocol has it, or (None) as a broken network does."""
        raise NotImplementedError

    # --- inside ------------------------------------------------------------------------------------------------------

    async def take(self, frame: Frame) -> None:
        if not self.awake:
            return
        if frame.type is FrameType.PING:
            self.pings.append(trio.current_time())
            await self.send_frame(Frame(FrameType.PONG, frame.timestamp_ms))
        elif frame.type is FrameType.PONG:
            self.pongs.append(frame.timestamp_ms)
        else:
            encoding = Encoding.JSON if frame.type is FrameType.JSON else Encoding.MSGPACK
            request = decode_request(frame.payload, encoding)
            if isinstance(request, Ack):
                self.acks.append(request)
            elif isinstance(request, Unsubscribe):
                self.unsubscribed.append(request.topic)
            else:
                self._put.send_nowait(request)

    async def run(self) -> None:
        raise NotImplementedError


class DevicePeer(Peer):
    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(Encoding.MSGPACK)
        self._stream = stream

    async def send_frame(self, frame: Frame) -> None:
        if frame.type <= FrameType.PONG:
            await self.send_raw(encode_heartbeat(frame.type, frame.timestamp_ms))
        else:
            assert isinstance(frame.payload, bytes)
            await self.send_raw(encode_frame(frame.type, frame.payload))

    async def send_raw(self, data: bytes) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(data)

    async def end(self, code: CloseCode | None = None) -> None:
        if code is not None:
            await self.send(Error(code=code, reason=code.reason, message="the server says so"))
        await self._stream.aclose()

    async def run(self) -> None:
        decoder = FrameDecoder()
        try:
            async for data in self._stream:
                decoder.receive(bytes(data))
                while (frame := decoder.next_frame()) is not None:
                    self.encoding = Encoding.JSON if frame.type is FrameType.JSON else self.encoding
                    await self.take(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.gone.set()


class WebSocketPeer(Peer):
    def __init__(self, stream: trio.abc.Stream, connection: WebSocketConnection, encoding: Encoding) -> None:
        super().__init__(encoding)
        self._stream = stream
        self._connection = connection

    async def send_frame(self, frame: Frame) -> None:
        if frame.type <= FrameType.PONG:
            await self.send_raw(encode_heartbeat(frame.type, frame.timestamp_ms))
        else:
            assert isinstance(frame.payload, bytes)
            is_text = frame.type is FrameType.JSON
            await self.send_raw(frame.payload.decode() if is_text else encode_frame(frame.type, frame.payload))

    async def send_raw(self, data: bytes | str) -> None:
        with suppress(ConnectionClosed):
            await self._connection.send_message(data)

    async def end(self, code: CloseCode | None = None) -> None:
        if code is None:
            await trio.aclose_forcefully(self._stream)
        else:
            await self._connection.aclose(code, "the server says so")

    async def run(self) -> None:
        try:
            while True:
                message = await self._connection.get_message()
                text = isinstance(message, str)
                for frame in [Frame(FrameType.JSON, 0, message)] if text else frames_of_message(message):
                    await self.take(frame)
        except ConnectionClosed:
            self.gone.set()


class CloggedStream(trio.abc.Stream):
    """A client's stream that takes no more bytes once it is `blocked`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.blocked = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.blocked:
            await trio.sleep_forever()
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class ScriptedServer:
    """Dialed instead of a network. `refusals` are raised by the next dials, before any connection is made."""

    def __init__(self, kind: str, nursery: trio.Nursery, tls: ssl.SSLContext | None = None) -> None:
        self.kind = kind
        self.url = "device://server:7501" if kind == "device" else "ws://server:7500"
        if tls is not None:
            self.url = "device+tls://localhost:7501" if kind == "device" else "wss://localhost:7500"
        self._tls = tls
        self.encoding = Encoding.JSON if kind == "ws-json" else Encoding.MSGPACK
        self.refusals: deque[BaseException] = deque()
        self.dials: list[float] = []
        self.tolerates_failures = False
        self.subprotocol = _SUBPROTOCOLS.get(kind)
        self.wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream
        self._nursery = nursery
        self._put, self._peers = trio.open_memory_channel[Peer](1000)

    def client(self, *arguments: Any, **options: Any) -> AbstractAsyncContextManager[Client]:
        """Open a client of this server."""
        return open_client(self.url, *arguments, encoding=self.encoding, dial=self.dial, **options)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        if self.refusals:
            raise self.refusals.popleft()
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, ours)
        return self.wrap(theirs)

    async def accept(self) -> Peer:
        """Wait for the next connection."""
        return await self._peers.receive()

    async def accept_connected(self, **fields: Any) -> Peer:
        """Wait for the next connection, and answer its `connect`."""
        peer = await self.accept()
        await peer.welcome(**fields)
        return peer

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await self._talk(stream)
        except* (trio.BrokenResourceError, ConnectionClosed):
            if not self.tolerates_failures:
                raise

    async def _talk(self, stream: trio.abc.Stream) -> None:
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            peer: Peer | None = (
                DevicePeer(stream) if self.kind == "device" else await self._shake_hands(stream, nursery)
            )
            if peer is not None:
                self._put.send_nowait(peer)
                await peer.run()
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()

    async def _shake_hands(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> Peer | None:
        with trio.move_on_after(HANDSHAKE_S):
            request = await wrap_server_stream(nursery, stream)
            connection = await request.accept(subprotocol=self.subprotocol)
            return WebSocketPeer(stream, connection, self.encoding)
        return None


@asynccontextmanager
async def open_scripted_server(kind: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    async with trio.open_nursery() as nursery:
        yield ScriptedServer(kind, nursery, tls)
        nursery.cancel_scope.cancel()


def restored(offset: int, *, recovered: bool | None = None, epoch: str = EPOCH) -> Restored:
    return Restored(epoch=epoch, offset=offset, recovered=UNSET if recovered is None else recovered)


def at(offset: int, epoch: str = EPOCH) -> Position:
    return Position(epoch, offset)
