"""Bytes to frames and back, on the hot path: an incremental decoder and an encoder over `struct`.

The normative layout is the Construct declaration in `frames.py`; the tests prove both equal on every input.
A payload above the limit is refused from the header alone, so a decoder never holds more than one limited payload
and one header beyond what it was last fed.

Source: spec/wire.md, "Frames".
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

MAGIC = b"HEAR"
HEADER_BYTES = 16
MAX_TIMESTAMP_MS = 2**64 - 1
MAX_PAYLOAD_BYTES = 2**24 - 1
DEFAULT_PAYLOAD_LIMIT_BYTES = 64 * 1024

MOST_PAYLOAD_LIMIT_BYTES = 2 * 1024 * 1024
"""The most a server's limit may be: a message grows to six times its size on its way to JSON, and must fit a frame."""


class FrameType(IntEnum):
    """The type byte of a frame. PING and PONG are complete in their 16 bytes; the others announce a payload."""

    PING = 0
    PONG = 1
    JSON = 2
    MSGPACK = 3


class Frame(NamedTuple):
    """One frame. `payload` is empty for heartbeats; a WebSocket text message arrives as a JSON frame holding `str`.

    `timestamp_ms` is the sender's clock: any origin for a PING, echoed in a PONG, Unix time (or 0) for data.
    """

    type: FrameType
    timestamp_ms: int
    payload: bytes | str = b""


_HEADER = struct.Struct(">4sBQ3s")
_PING, _PONG, _JSON, _MSGPACK = FrameType
_TYPES = tuple(FrameType)
_NO_PAYLOAD = b"\0\0\0"


class FrameDecoder:
    """Turns a stream of bytes, however it is cut, into frames. One per device link.

    `payload_limit_bytes` may be changed between two calls. An error is final: the stream cannot be resynchronised, what
    still arrives is thrown away, and every later `next_frame` raises an equal error.
    """

    __slots__ = ("_buffer", "_failure", "_start", "payload_limit_bytes")

    def __init__(self, payload_limit_bytes: int = DEFAULT_PAYLOAD_LIMIT_BYTES) -> None:
        self.payload_limit_bytes = payload_limit_bytes
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._failure: tuple[str, CloseCode] | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes received that no frame has been made of yet."""
        return len(self._buffer) - self._start

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the stream; `next_frame` tells what they complete."""
        if self._failure is not None:
            return
        if not self.buffered_bytes:
            self._buffer = bytes(data)  # no copy: what arrives whole is read where it is
        elif isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._buffer += data
        else:
            del self._buffer[: self._start]
            self._buffer += data
        self._start = 0

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more bytes have been received.

        Raises RemoteProtocolError where the stream stops being frames; the frames before that place were returned.
        """
        if self._failure is not None:
            raise RemoteProtocolError(*self._failure)
        try:
            return self._parse_frame()
        except RemoteProtocolError as error:
            self._failure = (error.message, error.close_code)
            self._clear()
            raise

    def _parse_frame(self) -> Frame | None:
        buffer, start = self._buffer, self._start
        if len(buffer) - start < HEADER_BYTES:
            if buffer:
                _check_magic(buffer[start : start + len(MAGIC)])
            return None
        kind, timestamp_ms, payload_bytes = parse_header(buffer, start, self.payload_limit_bytes)
        stop = start + HEADER_BYTES + payload_bytes
        if stop > len(buffer):
            return None
        payload = bytes(memoryview(buffer)[start + HEADER_BYTES : stop]) if payload_bytes else b""
        self._start = stop
        if stop == len(buffer):
            self._clear()
        return Frame(kind, timestamp_ms, payload)

    def _clear(self) -> None:
        self._buffer = b""
        self._start = 0


def frames_of_message(message: bytes, payload_limit_bytes: int = DEFAULT_PAYLOAD_LIMIT_BYTES) -> Iterator[Frame]:
    """Read a WebSocket binary message: one whole frame or more, back to back.

    Raises RemoteProtocolError as `FrameDecoder.next_frame` does, and for an empty message or a cut frame.
    """
    decoder = FrameDecoder(payload_limit_bytes)
    decoder.receive(message)
    while (frame := decoder.next_frame()) is not None:
        yield frame
    if decoder.buffered_bytes or not message:
        raise RemoteProtocolError("a binary message must hold a whole number of frames, at least one")


def parse_header(data: bytes | bytearray, start: int, payload_limit_bytes: int) -> tuple[FrameType, int, int]:
    """Read the 16 bytes at `start`; return type, timestamp in ms and payload size in bytes.

    Raises RemoteProtocolError for a wrong magic, type or reserved field, and for a payload above the limit.
    """
    magic, type_number, timestamp_ms, reserved = _HEADER.unpack_from(data, start)
    if magic != MAGIC:
        _check_magic(magic)
    if type_number > _MSGPACK:
        raise RemoteProtocolError(f"unknown frame type {type_number}; 0 to 3 are defined")
    kind = _TYPES[type_number]
    if kind <= _PONG:
        if reserved != _NO_PAYLOAD:
            raise RemoteProtocolError(f"the reserved bytes of a heartbeat must be zero, not {reserved.hex()}")
        return kind, timestamp_ms, 0
    payload_bytes = int.from_bytes(reserved, "big")
    if payload_bytes > payload_limit_bytes:
        raise RemoteProtocolError(
            f"a payload of {payload_bytes} bytes is above the limit of {payload_limit_bytes}", CloseCode.TOO_LARGE
        )
    return kind, timestamp_ms, payload_bytes


def encode_heartbeat(kind: FrameType, timestamp_ms: int) -> bytes:
    """Build the 16 bytes of a PING or PONG. Raises LocalProtocolError for another type or a timestamp out of range."""
    if kind > _PONG:
        raise LocalProtocolError(f"{kind.name} is not a heartbeat")
    return _build_header(kind, timestamp_ms, 0)


def encode_frame(kind: FrameType, payload: bytes, timestamp_ms: int = 0) -> bytes:
    """Build a JSON or MSGPACK frame around an encoded message; `timestamp_ms` is Unix time, 0 for "no clock".

    Raises LocalProtocolError for a heartbeat type, a payload of 16 MiB or more or a timestamp out of range.
    """
    if kind <= _PONG:
        raise LocalProtocolError(f"{kind.name} carries no payload")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise LocalProtocolError(f"a payload of {len(payload)} bytes does not fit the 24-bit length")
    return _build_header(kind, timestamp_ms, len(payload)) + payload


def _build_header(kind: FrameType, timestamp_ms: int, payload_bytes: int) -> bytes:
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        raise LocalProtocolError(f"timestamp {timestamp_ms} is not an unsigned 64-bit number of milliseconds")
    return _HEADER.pack(MAGIC, kind, timestamp_ms, payload_bytes.to_bytes(3, "big"))


def _check_magic(found: bytes | bytearray) -> None:
    if MAGIC.startswith(found):
        return
    place = next(place for place, byte in enumerate(found) if byte != MAGIC[place])
    raise RemoteProtocolError(
        f"a frame begins with {MAGIC.hex()} ('HEAR'): byte {place} is {found[place]:#04x}, not {MAGIC[place]:#04x}"
    )
