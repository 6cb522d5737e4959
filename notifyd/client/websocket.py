"""The WebSocket link from the client's side; the only client file that knows trio-websocket.

trio-websocket keeps a reader task, and what a hostile or dying server makes that task raise must not reach the client:
the task lives in `run_websocket`, which turns every failure of it into LinkClosed.

Source: spec/wire.md, "Transports"; RFC 6455.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError as ClosingState

from notifyd.client.address import ServerAddress
from notifyd.client.device import to_bytes
from notifyd.client.link import Heard, LinkClosed
from protocol.codec import HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, FrameType, frames_of_message
from protocol.errors import CloseCode
from protocol.framing import Encoding

_SUBPROTOCOLS = {Encoding.JSON: "notifyd.v1.json", Encoding.MSGPACK: "notifyd.v1.msgpack"}

_HTTP_CLOSE_CODES = {401: CloseCode.UNAUTHORIZED, 403: CloseCode.FORBIDDEN}
_ABNORMAL = (1005, 1006)
"""Codes that stand for "no code arrived" and never travel (RFC 6455 section 7.4.1)."""

_SHOWN_CHARACTERS = 200


class WebSocketClientLink:
    """A ClientLink over an open WebSocket connection."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def send(self, frames: Sequence[Frame]) -> None:
        """Send each frame as a message of its own: the server's limit counts by the message."""
        try:
            for frame in frames:
                await self._connection.send_message(_to_message(frame))
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        except ClosingState:
            raise LinkClosed("the connection is closing") from None

    async def receive(self) -> Iterable[Frame]:
        """Wait for a message; see ClientLink."""
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        if isinstance(message, str):
            return (Frame(FrameType.JSON, 0, message),)
        return frames_of_message(message, MAX_PAYLOAD_BYTES)

    async def close(self, code: CloseCode) -> None:
        """Send a Close frame and wait for the server's."""
        await self._connection.aclose(code, code.reason)


async def run_websocket(
    stream: trio.abc.Stream,
    address: ServerAddress,
    encoding: Encoding,
    heard: Heard,
    *,
    task_status: trio.TaskStatus[WebSocketClientLink] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Shake hands, hand the link over through `started`, and keep trio-websocket's reader until it ends.

    Raises LinkClosed when the server does not accept; its `code` is set where it will not accept another time either.
    """
    socket = _HandshakeStream(stream, heard)
    failure: LinkClosed | None = None
    try:
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                cast("trio.SocketStream", socket),  # any stream will do
                address.authority,
                address.target,
                subprotocols=[_SUBPROTOCOLS[encoding]],
                max_message_size=MAX_PAYLOAD_BYTES + HEADER_BYTES,
            )
            if connection.subprotocol != _SUBPROTOCOLS[encoding]:
                raise LinkClosed(f"the server does not speak {_SUBPROTOCOLS[encoding]}")
            socket.is_open = True
            task_status.started(WebSocketClientLink(connection))
    except* Exception as group:
        failure = _handshake_failure(group)
    if failure is not None and not socket.is_open:
        raise failure


class _HandshakeStream(trio.abc.Stream):
    """The stream below trio-websocket: it notes signs of life, and makes an end during the handshake an error.

    Without the latter trio-websocket would wait for the rest of the handshake for ever.
    """

    def __init__(self, stream: trio.abc.Stream, heard: Heard) -> None:
        self._stream = stream
        self._heard = heard
        self.is_open = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if self.is_open:
                raise
            raise LinkClosed(f"the connection broke: {error}") from None
        if data:
            self._heard()
        elif not self.is_open:
            raise LinkClosed("the server closed the connection during the WebSocket handshake")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _to_message(frame: Frame) -> str | bytes:
    if frame.type is FrameType.JSON and isinstance(frame.payload, bytes):
        return frame.payload.decode()
    return to_bytes(frame)


def _closed(closed: ConnectionClosed) -> LinkClosed:
    if closed.reason is None or closed.reason.code in _ABNORMAL:
        return LinkClosed("the server closed the connection")
    return LinkClosed(closed.reason.reason or closed.reason.name.lower(), closed.reason.code)


def _handshake_failure(group: ExceptionGroup[Exception]) -> LinkClosed:
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, LinkClosed):
        return failure
    if not isinstance(failure, ConnectionRejected):
        return LinkClosed(f"the server's WebSocket handshake is not one: {failure}")
    body = (failure.body or b"").decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
    said = f": {body}" if body else ""
    status = failure.status_code
    code = _HTTP_CLOSE_CODES.get(status)
    return LinkClosed(f"the server answered HTTP {status}{said}", code, _retry_after_s(failure))


def _retry_after_s(failure: ConnectionRejected) -> float | None:
    """Read `Retry-After` as seconds; the form with a date (RFC 9110 section 10.2.3) is not worth a clock."""
    for name, value in failure.headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return float(value)
    return None
