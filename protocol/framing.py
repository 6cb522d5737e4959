"""The four forms in which an encoded message leaves a node, and the bytes around it in each.

A server's WebSocket frames are unmasked (RFC 6455 section 5.1), so one frame's bytes are shared by every receiver.

Source: spec/wire.md, "Transports"; RFC 6455 section 5.2.
"""

from enum import IntEnum

from protocol.codec import FrameType, encode_frame
from protocol.errors import CloseCode, LocalProtocolError

MAX_CONTROL_PAYLOAD_BYTES = 125
"""What a Close, Ping or Pong may carry (RFC 6455 section 5.5)."""

MAX_CLOSE_REASON_BYTES = MAX_CONTROL_PAYLOAD_BYTES - 2
"""The close code takes two bytes of a Close (RFC 6455 section 5.5.1)."""


class Encoding(IntEnum):
    """How a message is written down."""

    JSON = 0
    MSGPACK = 1


_ENCODINGS = tuple(Encoding)
"""By number: to call the enumeration takes half a microsecond."""


class Opcode(IntEnum):
    """The WebSocket opcodes of RFC 6455 section 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Form(IntEnum):
    """A transport and an encoding: everything that decides the bytes of an outgoing message."""

    WEBSOCKET_JSON = 0
    WEBSOCKET_MSGPACK = 1
    DEVICE_JSON = 2
    DEVICE_MSGPACK = 3

    @property
    def encoding(self) -> Encoding:
        """The encoding of this form's messages."""
        return _ENCODINGS[self & 1]

    @property
    def is_device(self) -> bool:
        """Whether this form goes to a device link."""
        return self >= _DEVICE_JSON


def to_wire(form: Form, payload: bytes, timestamp_ms: int) -> bytes:
    """Wrap an encoded message for its form; `timestamp_ms` (Unix time) stands in the header where the form has one."""
    if form == _WEBSOCKET_JSON:
        return websocket_frame(_TEXT, payload)
    if form.is_device:
        return encode_frame(_FRAME_TYPES[form.encoding], payload, timestamp_ms)
    return websocket_frame(_BINARY, encode_frame(FrameType.MSGPACK, payload, timestamp_ms))


def heartbeat_to_wire(form: Form, heartbeat: bytes) -> bytes:
    """Wrap 16 heartbeat bytes for their form: always a binary message on WebSocket, bare on a device link."""
    return heartbeat if form.is_device else websocket_frame(Opcode.BINARY, heartbeat)


def websocket_frame(opcode: Opcode, payload: bytes) -> bytes:
    """Build one final, unmasked WebSocket frame. Raises LocalProtocolError for a control frame above 125 bytes."""
    size_bytes = len(payload)
    if size_bytes <= MAX_CONTROL_PAYLOAD_BYTES:
        return bytes((0x80 | opcode, size_bytes)) + payload
    if opcode >= _CLOSE:
        raise LocalProtocolError(f"a {opcode.name} frame carries at most 125 bytes, not {size_bytes}")
    if size_bytes < 65536:
        return bytes((0x80 | opcode, 126)) + size_bytes.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size_bytes.to_bytes(8, "big") + payload


def close_frame(code: CloseCode, reason: str) -> bytes:
    """Build a WebSocket Close frame; the reason is cut at a character where it is longer than a control frame holds."""
    text = reason.encode(errors="replace")[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    return websocket_frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)


# Each message asks for these: a name of the module is found in a third of the time that a member of an enum takes.
_WEBSOCKET_JSON, _DEVICE_JSON = Form.WEBSOCKET_JSON, Form.DEVICE_JSON
_TEXT, _BINARY, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE
_FRAME_TYPES = {Encoding.JSON: FrameType.JSON, Encoding.MSGPACK: FrameType.MSGPACK}
