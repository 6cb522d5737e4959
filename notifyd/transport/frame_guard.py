"""Watches a client's WebSocket bytes, so that trio-websocket sees bounded things only, and few of them. No I/O.

wsproto has no limit on a message's fragments and ends a connection without a Close frame on most violations. The guard
reads frame headers and steps over payloads: it finds what is too big, too finely cut or against the framing rules
before wsproto does, and says which Close code answers it.

Nearly all messages are one frame and arrive whole. Those the guard takes out of the stream itself, at a tenth of what
wsproto takes for them. Whatever is not as plain as that, or wrong, is for wsproto: UTF-8, the inside of a Close frame.

Source: RFC 6455 sections 5.2 to 5.5, spec/wire.md "WebSocket".
"""

import struct

from protocol.codec import HEADER_BYTES
from protocol.errors import CloseCode, RemoteProtocolError

FRAMES_A_PIECE = 16
"""Frames taken or handed on at once: the caller lets others have their turn in between."""

MAX_FRAGMENTS = 1024
"""Frames of one message, empty ones included. 64 KiB cut into TCP segments is about 50."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_CONTROL = 0x08
_CONTROL_BYTES = 125
_MASK_BYTES = 4
_WHOLE_BINARY = _FINAL | _BINARY
_WHOLE = frozenset({_FINAL | _TEXT, _WHOLE_BINARY})
_TWO_BYTES, _EIGHT_BYTES = struct.Struct(">H"), struct.Struct(">Q")


class GuardError(RemoteProtocolError):
    """The client's bytes end here: it is to be told `close_code` in a Close frame. `message` is for people."""

    def __init__(self, close_code: CloseCode, message: str) -> None:
        super().__init__(message, close_code)


def _fault_of(first: int) -> str | None:
    opcode = first & _OPCODE
    if first & _RESERVED:
        return "a reserved bit is set, but no extension was agreed on"
    if opcode not in {_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG}:
        return f"opcode {opcode} is not defined"
    if opcode & _CONTROL and not first & _FINAL:
        return "a control frame may not be fragmented"
    return None


_FAULTS = {first: fault for first in range(256) if (fault := _fault_of(first)) is not None}
"""What is wrong with a frame that starts with this byte, whatever came before."""


class FrameGuard:
    """Follows the frames of one client's stream, however it is cut. One per WebSocket connection; its size is constant.

    A text message may hold `limit_bytes`, a binary one `binary_extra_bytes` more, so that a frame of notifyd with the
    longest payload fits with its header; several frames share that room. Both limits are judged from the headers, added
    up over fragments, and may be changed between two calls. `pings_seen`, `pongs_seen`, `messages_seen` only grow.
    """

    __slots__ = (
        "_at",
        "_binary",
        "_data",
        "_ended",
        "_error",
        "_fragments",
        "_message_bytes",
        "_remaining",
        "binary_extra_bytes",
        "limit_bytes",
        "messages_seen",
        "pings_seen",
        "pongs_seen",
    )

    def __init__(self, limit_bytes: int, binary_extra_bytes: int = HEADER_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.binary_extra_bytes = binary_extra_bytes
        self.pings_seen = 0
        self.pongs_seen = 0
        self.messages_seen = 0
        self._data = b""
        self._at = 0
        self._remaining = 0  # bytes still to come of the frame whose header was judged last
        self._fragments = 0  # frames seen of the message that is not finished; 0 between messages
        self._message_bytes = 0
        self._binary = False
        self._ended = False
        self._error: GuardError | None = None

    @property
    def close_seen(self) -> bool:
        """Whether the client's Close frame came: what follows it is thrown away, as the RFC says."""
        return self._ended

    @property
    def between_frames(self) -> bool:
        """Whether the last frame that was judged has been handed on whole."""
        return not self._remaining

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Ask for pieces until there are none before feeding again."""
        if self._error is not None or (self._ended and not self._remaining):
            return
        self._data = self._data[self._at :] + data
        self._at = 0

    def next_messages(self) -> list[str | bytes]:
        """Take out the messages that come next, at most 16, as far as each is one whole frame with nothing wrong in it.

        Without any, `next_piece` says what there is instead. Together they return the stream in its order.
        """
        messages: list[str | bytes] = []
        if self._remaining or self._fragments or self._ended:
            return messages
        data, at = self._data, self._at
        while len(messages) < FRAMES_A_PIECE and (whole := self._whole_message(data, at)) is not None:
            message, at = whole
            messages.append(message)
        self._at = at
        self.messages_seen += len(messages)
        return messages

    def _whole_message(self, data: bytes, at: int) -> tuple[str | bytes, int] | None:
        """Read the message at `at`, and where it stops; None where there is doubt."""
        if len(data) - at < 2 + _MASK_BYTES:
            return None
        first, second = data[at], data[at + 1]
        if first not in _WHOLE or second < _MASKED:
            return None
        length, start = second & _LENGTH, at + 2 + _MASK_BYTES
        if length > _CONTROL_BYTES:
            (length,) = _TWO_BYTES.unpack_from(data, at + 2)
            start += 2
            if length <= _CONTROL_BYTES or second == _MASKED | 127:
                return None
        stop = start + length
        if stop > len(data) or length > self.limit_bytes + (self.binary_extra_bytes if first == _WHOLE_BINARY else 0):
            return None
        payload = _unmask(data[start:stop], data[start - _MASK_BYTES : start])
        if first == _WHOLE_BINARY:
            return payload, stop
        try:
            return payload.decode(), stop
        except UnicodeDecodeError:
            return None

    def next_piece(self) -> bytes | None:
        """Return the next bytes to hand on, of at most 16 frames; None when more must be fed first.

        Payload is handed on as it comes, a header only once it was judged. Raises GuardError where the stream goes
        wrong, after all before that place was handed on, and again on every later call.
        """
        if self._error is not None:
            raise self._error
        data, start, size = self._data, self._at, len(self._data)
        stop = start + self._remaining
        try:
            for _ in range(FRAMES_A_PIECE - (stop > start)):
                if stop >= size or self._ended or not (frame_bytes := self._judge(data, stop)):
                    break
                stop += frame_bytes
        except GuardError as error:
            if stop == start:
                self._error, self._data = error, b""
                raise
        self._at = min(stop, size)
        self._remaining = stop - self._at
        return data[start : self._at] or None

    def _judge(self, data: bytes, at: int) -> int:
        """Judge the header at `at`; return its whole frame's size in bytes, 0 while the header is not all there."""
        available = len(data) - at
        if available < 2:
            return 0
        first, second = data[at], data[at + 1]
        opcode, length, header_bytes = first & _OPCODE, second & _LENGTH, 2 + _MASK_BYTES
        self._check_order(first, opcode)
        if not second & _MASKED:
            raise _violation("a client must mask its frames")
        if opcode & _CONTROL:
            self._take_control(opcode, length)
            return header_bytes + length
        if length > _CONTROL_BYTES:
            extra_bytes = 2 if length == 126 else 8
            if available < 2 + extra_bytes:
                return 0
            length = _extended_length(data, at + 2, extra_bytes)
            header_bytes += extra_bytes
        self._take_fragment(first, opcode, length)
        return header_bytes + length

    def _check_order(self, first: int, opcode: int) -> None:
        if first in _FAULTS:
            raise _violation(_FAULTS[first])
        if opcode == _CONTINUATION:
            if not self._fragments:
                raise _violation("a continuation frame without a message to continue")
            if self._fragments >= MAX_FRAGMENTS:
                raise GuardError(CloseCode.POLICY_VIOLATION, f"a message in more than {MAX_FRAGMENTS} fragments")
        elif self._fragments and not opcode & _CONTROL:
            raise _violation("a new message before the last one was finished")

    def _take_control(self, opcode: int, length: int) -> None:
        if length > _CONTROL_BYTES:
            raise _violation(f"a control frame may carry {_CONTROL_BYTES} bytes at most")
        if opcode == _PING:
            self.pings_seen += 1
        elif opcode == _PONG:
            self.pongs_seen += 1
        else:
            self._ended = True

    def _take_fragment(self, first: int, opcode: int, length: int) -> None:
        binary = self._binary if opcode == _CONTINUATION else opcode == _BINARY
        message_bytes = self._message_bytes + length
        limit_bytes = self.limit_bytes + self.binary_extra_bytes if binary else self.limit_bytes
        if message_bytes > limit_bytes:
            raise GuardError(CloseCode.MESSAGE_TOO_BIG, f"a message above the limit of {limit_bytes} bytes")
        if first & _FINAL:
            self._fragments = self._message_bytes = 0
            self.messages_seen += 1
        else:
            self._fragments += 1
            self._message_bytes = message_bytes
            self._binary = binary


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """Undo the masking (RFC 6455 section 5.3) as one sum of two large integers: the quickest that CPython offers."""
    size_bytes = len(payload)
    masks = (mask * (size_bytes // _MASK_BYTES + 1))[:size_bytes]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(masks, "little")).to_bytes(size_bytes, "little")


def _extended_length(data: bytes, at: int, size: int) -> int:
    length: int
    if size == 2:
        (length,) = _TWO_BYTES.unpack_from(data, at)
        shortest = _CONTROL_BYTES + 1
    else:
        (length,) = _EIGHT_BYTES.unpack_from(data, at)
        shortest = 0x10000
    if length < shortest:
        raise _violation("a payload length is not written in the shortest form")
    if length >> 63:
        raise _violation("a payload length has its highest bit set")
    return length


def _violation(message: str) -> GuardError:
    return GuardError(CloseCode.WEBSOCKET_PROTOCOL_ERROR, message)
