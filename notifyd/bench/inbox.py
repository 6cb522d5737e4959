"""What a load's clients hear: bytes to frames and messages, where each one matters.

Where only their number matters, `counting` does it for a hundredth of the cost.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from protocol.codec import HEADER_BYTES, MAGIC, MAX_PAYLOAD_BYTES, Frame, FrameType, frames_of_message, parse_header
from protocol.errors import RemoteProtocolError
from protocol.framing import Encoding, Opcode
from protocol.messages import Restored

CLOSE_FRAME_BYTES = 2
_LENGTH_16, _LENGTH_64 = 126, 127


class LinkEnded(Exception):
    """A connection came to its end: the text is the kind of error that it is counted as."""


class HeardMessage(msgspec.Struct):
    """What a load wants to know of a server's message, whichever it is."""

    op: str
    id: int = 0
    code: int = 0
    reason: str = ""
    retry_after: float = 0.0
    session: str = ""
    resumed: bool = False
    epoch: str = ""
    offset: int = 0
    recovered: bool | None = None
    topics: dict[str, Restored] | None = None


_DECODERS: dict[Encoding, Callable[[Any], HeardMessage]] = {
    Encoding.JSON: msgspec.json.Decoder(HeardMessage).decode,
    Encoding.MSGPACK: msgspec.msgpack.Decoder(HeardMessage).decode,
}


def read_heard(frame: Frame) -> HeardMessage:
    """Read a server's message. Raises LinkEnded for what is none."""
    try:
        return _DECODERS[Encoding.JSON if frame.type is FrameType.JSON else Encoding.MSGPACK](frame.payload)
    except (msgspec.DecodeError, UnicodeError):
        raise LinkEnded("bad message") from None


class Inbox:
    """Takes the bytes of one connection, however they are cut, and gives the frames in them.

    A WebSocket text message is given as a JSON frame. What a server never sends is passed over (Pong) or ends the
    link (fragments).
    """

    __slots__ = ("_bytes", "_frames", "_is_device")

    def __init__(self, *, is_device: bool) -> None:
        self._is_device = is_device
        self._bytes = b""
        self._frames: Iterator[Frame] = iter(())

    def receive(self, data: bytes) -> None:
        """Take the next bytes."""
        self._bytes = self._bytes + data if self._bytes else data

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, None until more bytes have come. Raises LinkEnded where the server closes."""
        try:
            frame = next(self._frames, None)
            while frame is None and (taken := self._device_frames() if self._is_device else self._message_frames()):
                self._frames = taken
                frame = next(self._frames, None)
        except RemoteProtocolError:
            raise LinkEnded("bad frame") from None
        return frame

    def take_rest(self) -> bytes:
        """Give up what no frame was made of yet."""
        rest, self._bytes = self._bytes, b""
        return rest

    def _device_frames(self) -> Iterator[Frame] | None:
        data = self._bytes
        if len(data) < HEADER_BYTES:
            return None
        kind, timestamp, payload_bytes = parse_header(data, 0, MAX_PAYLOAD_BYTES)
        end = HEADER_BYTES + payload_bytes
        if len(data) < end:
            return None
        self._bytes = data[end:]
        return iter((Frame(kind, timestamp, data[HEADER_BYTES:end]),))

    def _message_frames(self) -> Iterator[Frame] | None:
        """Take a WebSocket frame (RFC 6455 section 5.2); the server's are neither masked nor in pieces."""
        data = self._bytes
        extent = _extent(data)
        if extent is None or len(data) < extent.end:
            return None
        payload, self._bytes = data[extent.start : extent.end], data[extent.end :]
        match data[0]:
            case 0x81:
                return iter((Frame(FrameType.JSON, 0, payload),))
            case 0x82:
                return frames_of_message(payload, MAX_PAYLOAD_BYTES)
            case 0x88:
                raise LinkEnded(f"closed {int.from_bytes(payload[:CLOSE_FRAME_BYTES], 'big') or ''}".strip())
            case 0x89 | 0x8A:
                return iter(())
        raise LinkEnded("bad frame")


class _Extent(NamedTuple):
    start: int
    end: int


def _extent(data: bytes) -> _Extent | None:
    """Tell where the payload of a WebSocket frame begins and ends; None until its head is there."""
    if len(data) < 2:
        return None
    size, start = data[1], 2
    if size >= _LENGTH_16:
        start = 4 if size == _LENGTH_16 else 10
        if len(data) < start:
            return None
        size = int.from_bytes(data[2:start], "big")
    return _Extent(start, start + size)


def last_words(tail: bytes, *, is_device: bool) -> str:
    """Name the end of a connection by the last bytes that came: the close code, where the server told one."""
    code = _pushed_code(tail) if is_device else _close_code(tail)
    return f"closed {code}" if code else "closed"


def _pushed_code(tail: bytes) -> int:
    """Return the code of the `error` push that is a device link's last frame."""
    start = max(tail.rfind(MAGIC + bytes((kind,))) for kind in (FrameType.JSON, FrameType.MSGPACK))
    inbox = Inbox(is_device=True)
    inbox.receive(tail[max(start, 0) :])
    try:
        frame = inbox.next_frame()
        heard = None if frame is None else read_heard(frame)
    except LinkEnded:
        heard = None
    return heard.code if heard is not None and heard.op == "error" else 0


def _close_code(tail: bytes) -> int:
    """Return the code of the Close frame that ends these bytes."""
    for start in range(len(tail) - 3):
        if tail[start] == 0x80 | Opcode.CLOSE and start + 2 + tail[start + 1] == len(tail):
            return int.from_bytes(tail[start + 2 : start + 4], "big")
    return 0
