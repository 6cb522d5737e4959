"""The WebSocket transport: the only file of the server that knows trio-websocket.

The handshake is answered here, from a head that was judged before; trio-websocket reads what comes behind it, and
believes to have a stream of its own. That stream is ours: what it reads has passed the guard, what it sends goes
through the connection's outbox as whole frames. Messages that arrive whole, nearly all there are, never get to it: the
stream puts them, those of one read together, into the channel in which trio-websocket hands over its own. So the order
of all is kept, by the task that reads.

Source: RFC 6455; spec/wire.md, "Transports".
"""

import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, cast

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection as FrameConnection

from notifyd.errors import StreamBroken
from notifyd.hub.outbox import Outbox
from notifyd.transport.frame_guard import FrameGuard
from notifyd.transport.request_head import upgrade
from notifyd.transport.stream import ByteStream
from protocol.codec import Frame, FrameType, frames_of_message
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.framing import Form, Opcode, close_frame, websocket_frame

SUBPROTOCOLS = {"notifyd.v1.json": Form.WEBSOCKET_JSON, "notifyd.v1.msgpack": Form.WEBSOCKET_MSGPACK}
"""The subprotocols, each with the form in which its client is answered."""

_UNLIMITED = 2**62
"""trio-websocket counts characters; the guard has counted bytes before it sees any."""

FAILING_S = 1.0
"""What a task that failed may take to end: a step of the scheduler, whatever that takes on a busy machine."""

_CLOSE_BYTE = 0x80 | Opcode.CLOSE


class GuardedStream(trio.abc.Stream):
    """What trio-websocket reads from and writes to, in place of a socket. Plain messages go into `received` instead."""

    __slots__ = (
        "_asked",
        "_attached",
        "_control_frames",
        "_guard",
        "_messages",
        "_on_bytes",
        "_one_by_one",
        "_outbox",
        "_stream",
        "close_sent",
        "error",
        "received",
    )

    received: "trio.MemorySendChannel[Any]"

    def __init__(self, stream: ByteStream, guard: FrameGuard, on_bytes: Callable[[int], None]) -> None:
        self.error: RemoteProtocolError | None = None
        self.close_sent = False
        self._stream = stream
        self._guard = guard
        self._on_bytes = on_bytes
        self._control_frames = 0
        self._outbox: Outbox | None = None
        self._attached: trio.Event | None = None
        self._one_by_one = True
        self._messages = 0
        self._asked: trio.Event | None = None

    def attach(self, outbox: Outbox) -> None:
        """Send through the outbox from now on, and let through what the client sends."""
        self._outbox = outbox
        if self._attached is not None:
            self._attached.set()
            self._attached = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - the guard cuts
        """Return what the guard lets through, at most 16 frames at a time.

        Nothing passes before `attach`: a pong must not overtake the outbox. A violation is kept in `error` and looks
        like a broken socket.
        """
        await trio.lowlevel.checkpoint()
        if self._outbox is None:
            self._attached = trio.Event()
            await self._attached.wait()
        try:
            while not (piece := await self._next_piece()):
                data = await self._stream.receive_some()
                if not data:
                    return b""
                self._guard.feed(data)
        except RemoteProtocolError as error:
            self.error = error
        except StreamBroken:
            pass
        else:
            return piece
        raise trio.BrokenResourceError

    async def _next_piece(self) -> bytes | None:
        """Hand over the messages that come next; return what trio-websocket has to see then, None for nothing.

        Until `let_all_through` a message waits for the one before it: what follows `connect` is held to the limits of a
        connected client. A Close always waits: nothing is sent behind its answer.
        """
        guard = self._guard
        while True:
            while self._one_by_one and guard.between_frames and self._messages < guard.messages_seen:
                await self._wait_asked()
            if self._one_by_one or not (messages := guard.next_messages()):
                break
            self._on_bytes(0)
            await self._hand_over(messages)
        # A message of which the rest is still to come is counted already: nobody can handle it before it is handed on.
        seen = guard.messages_seen - (not guard.between_frames)
        piece = guard.next_piece()
        if piece:
            self._on_bytes(self._new_control_frames())
            while guard.close_seen and self._messages < seen:
                await self._wait_asked()
        return piece

    async def _hand_over(self, messages: list[str | bytes]) -> None:
        """Put messages behind those that trio-websocket handed over; wait where nobody has taken the last ones."""
        try:
            self.received.send_nowait(messages)
        except trio.WouldBlock:
            await self.received.send(messages)

    async def _wait_asked(self) -> None:
        """Wait for `ask`, or for `let_all_through`."""
        self._asked = trio.Event()
        await self._asked.wait()

    def ask(self, messages: int) -> None:
        """Take note that all of the first `messages` messages have been handled, and more are wanted."""
        self._messages = messages
        if self._asked is not None:
            self._asked.set()
            self._asked = None

    def let_all_through(self) -> None:
        """Wait no longer, before each message is judged, until the one before it has been handled."""
        self._one_by_one = False
        if self._asked is not None:
            self._asked.set()
            self._asked = None

    def _new_control_frames(self) -> int:
        seen = self._guard.pings_seen + self._guard.pongs_seen
        new, self._control_frames = seen - self._control_frames, seen
        return new

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a control frame in the outbox."""
        assert self._outbox is not None, "nothing is read before there is one"
        frame = bytes(data)
        if frame[0] == _CLOSE_BYTE:
            self.close_sent = True
            self._outbox.close(frame, discard=False)
        else:
            self._outbox.put_frame(frame)
            self._outbox.flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: the outbox takes everything."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: the socket is closed by the connection that owns it."""
        await trio.lowlevel.checkpoint()


class WebSocketTransport:
    """The receiving half of a WebSocket; see notifyd.connection.transport.Transport.

    `answer` opens it at the client: the first that its outbox sends.
    """

    __slots__ = ("_answer", "_fault", "_guard", "_limit_bytes", "_messages", "_stream", "_websocket", "form")

    def __init__(
        self, websocket: WebSocketConnection, stream: GuardedStream, guard: FrameGuard, form: Form, answer: bytes
    ) -> None:
        self.form = form
        self._answer = answer
        self._websocket = websocket
        self._stream = stream
        self._guard = guard
        self._limit_bytes = guard.limit_bytes
        self._messages = 0
        self._fault: RemoteProtocolError | None = None

    async def receive(self) -> list[Frame] | None:
        """Wait for messages: a text one is one JSON frame, a binary one is whole frames."""
        if self._fault is not None:
            raise self._fault
        messages = await self.receive_messages()
        return None if messages is None else self._read_frames(messages)

    def _read_frames(self, messages: list[str | bytes]) -> list[Frame]:
        frames: list[Frame] = []
        try:
            for message in messages:
                if isinstance(message, str):
                    frames.append(Frame(FrameType.JSON, 0, message))
                else:
                    frames.extend(frames_of_message(message, self._limit_bytes))
        except RemoteProtocolError as fault:
            if not frames:
                raise
            self._fault = fault  # told once the frames before it have been handled
        return frames

    async def receive_messages(self) -> list[str | bytes] | None:
        """Wait for whole messages that arrived together; None when the peer is gone. Raises RemoteProtocolError."""
        self._stream.ask(self._messages)
        try:
            received: list[str | bytes] | str | bytes = await self._websocket.get_message()
        except ConnectionClosed:
            if self._stream.error is not None:
                raise self._stream.error from None
            closed = self._websocket.closed
            if self._stream.close_sent:
                return None
            if closed is None:  # the reader task failed: its exception is on its way, and must not drown in our leaving
                await trio.sleep(FAILING_S)
                raise RuntimeError("trio-websocket's reader ended without a reason") from None
            if closed.code in _PROTOCOL_ERRORS:
                raise RemoteProtocolError(closed.reason or "", CloseCode(closed.code)) from None
            return None
        messages = received if isinstance(received, list) else [received]
        self._messages += len(messages)
        return messages

    def attach(self, outbox: Outbox) -> None:
        """Queue the answer to the handshake; pongs and the close reply will go through the outbox, too."""
        outbox.put_frame(self._answer)
        self._answer = b""
        self._stream.attach(outbox)

    def set_payload_limit(self, limit_bytes: int) -> None:
        """Refuse messages above this from their first header alone."""
        self._limit_bytes = limit_bytes
        self._guard.limit_bytes = limit_bytes
        self._stream.let_all_through()

    def final_frame(self, code: CloseCode, message: str) -> bytes:
        """Build the Close frame, unless the peer's own was answered already."""
        return b"" if self._stream.close_sent else close_frame(code, message)


def open_websocket(
    nursery: trio.Nursery,
    stream: ByteStream,
    *,
    key: str,
    trailing: bytes,
    subprotocol: str | None,
    limit_bytes: int,
    on_bytes: Callable[[int], None],
) -> WebSocketTransport:
    """Return the WebSocket that a judged upgrade request asks for; its outbox will send the answer.

    `key` is the request's, `trailing` what came behind it. trio-websocket's reader task runs in `nursery`.
    """
    guard = FrameGuard(limit_bytes)
    guard.feed(trailing)
    guarded = GuardedStream(stream, guard, on_bytes)
    # wsproto's front parses and writes the handshake a second time, by h11, which costs as much as all else on the way
    # here. What it passes every call on to from then on has the same methods.
    frames = cast("WSConnection", FrameConnection(ConnectionType.SERVER))
    websocket = WebSocketConnection(guarded, frames, max_message_size=_UNLIMITED, message_queue_size=0)
    _slim(websocket)
    guarded.received = websocket._send_channel  # noqa: SLF001 - the place of every message in the order of all
    nursery.start_soon(websocket._reader_task)  # noqa: SLF001 - as its own `wrap_server_stream` does
    form = SUBPROTOCOLS[subprotocol] if subprotocol else Form.WEBSOCKET_JSON
    return WebSocketTransport(websocket, guarded, guard, form, upgrade(key, subprotocol))


_SHARED: dict[str, object] = {
    "_connection_proposal": None,
    "_open_handshake": trio.Event(),
    "_close_handshake": trio.Event(),
    "_for_testing_peer_closed_connection": trio.Event(),
    "_pings": OrderedDict(),
    "_stream_lock": contextlib.nullcontext(),
}
"""What all connections have together of that which trio-websocket makes for each: nobody waits for its events, nobody
pings through it, and what it sends goes into the outbox without waiting: no send comes between another's parts."""

_EMPTY: deque[Any] = deque()
"""In place of deques that never hold anything from one step to the next, and of which each takes 760 bytes: the channel
has room for none, so that it appends and takes in one go, and wsproto is never told that the stream ended."""


def _slim(websocket: WebSocketConnection) -> None:
    """Let an open connection share what it has no use of its own for: 3 KB, and there are thousands of connections."""
    for name, shared in _SHARED.items():
        setattr(websocket, name, shared)
    websocket._send_channel._state.data = _EMPTY  # noqa: SLF001
    websocket._wsproto._events = _EMPTY  # type: ignore[attr-defined]  # noqa: SLF001


async def send_all(stream: ByteStream, data: bytes) -> None:
    """Send bytes that have no outbox: the refusal of a handshake. Raises StreamBroken."""
    rest = memoryview(data)
    while rest or stream.has_unsent:
        sent_bytes = stream.send_now(rest)
        rest = rest[sent_bytes:]
        if rest or stream.has_unsent:
            await stream.wait_writable()


def echo_frame(message: str | bytes) -> bytes:
    """Write a message down again as it came."""
    if isinstance(message, str):
        return websocket_frame(Opcode.TEXT, message.encode())
    return websocket_frame(Opcode.BINARY, message)


_PROTOCOL_ERRORS = frozenset(
    {
        CloseCode.WEBSOCKET_PROTOCOL_ERROR,
        CloseCode.INVALID_TEXT,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)
