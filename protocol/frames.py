"""The frames, declared in Construct: the one normative layout, and a slow, plain parser and builder made of it.

The node itself runs `codec.py`; the tests prove both equal on valid, truncated and mutated bytes. These declarations
are for `notifyd decode`, for reading, and for everybody who writes another implementation. They are interpreted and
must stay so: Construct's `.compile()` accepts truncated payloads.

Source: spec/wire.md, "Frames".
"""

import construct
from construct import Byte, Bytes, Const, ExprValidator, Int24ub, Int64ub, OneOf, Rebuild, Struct, Tell, len_, this

from protocol.codec import DEFAULT_PAYLOAD_LIMIT_BYTES, HEADER_BYTES, MAGIC, MAX_PAYLOAD_BYTES, FrameType
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError

HEARTBEAT_TYPES = (FrameType.PING, FrameType.PONG)
DATA_TYPES = (FrameType.JSON, FrameType.MSGPACK)
TYPE_OFFSET = 4


def _is_within_limit(size_bytes: int, context: construct.Container) -> bool:
    """Refuse a payload from the header alone, before it is read."""
    within: bool = size_bytes <= context["_params"]["payload_limit_bytes"]
    return within


Heartbeat = Struct(
    "magic" / Const(b"HEAR"),
    "type" / OneOf(Byte, HEARTBEAT_TYPES),
    "timestamp_ms" / Int64ub,
    "reserved" / Const(b"\x00\x00\x00"),
    "size_bytes" / Tell,
)
"""A PING or a PONG: 16 bytes, complete."""

DataFrame = Struct(
    "magic" / Const(b"HEAR"),
    "type" / OneOf(Byte, DATA_TYPES),
    "timestamp_ms" / Int64ub,
    "payload_bytes" / Rebuild(ExprValidator(Int24ub, _is_within_limit), len_(this.payload)),
    "payload" / Bytes(this.payload_bytes),
    "size_bytes" / Tell,
)
"""A JSON or MSGPACK frame: 16 bytes and a payload within `payload_limit_bytes`, which the caller hands in."""


class TruncatedFrame(RemoteProtocolError):
    """The bytes end before the frame does: an error in a message, a reason to wait for more in a stream."""


def parse_frame(data: bytes, payload_limit_bytes: int = DEFAULT_PAYLOAD_LIMIT_BYTES) -> construct.Container:
    """Parse the frame at the beginning of `data`; `size_bytes` of the result says where it ends.

    The fields are `magic`, `type`, `timestamp_ms`, then `reserved`, or `payload_bytes` and `payload`. Raises
    TruncatedFrame for the beginning of a frame, RemoteProtocolError for what can be the beginning of none.
    """
    if len(data) < HEADER_BYTES:
        raise _cut_off(data)
    layout = Heartbeat if data[TYPE_OFFSET] in HEARTBEAT_TYPES else DataFrame
    try:
        return layout.parse(data, payload_limit_bytes=payload_limit_bytes)
    except construct.StreamError:
        raise _cut_off(data) from None
    except construct.ConstructError as failure:
        too_large = failure.path.endswith("payload_bytes")
        code = CloseCode.TOO_LARGE if too_large else CloseCode.PROTOCOL_ERROR
        raise RemoteProtocolError(f"not a frame: {_one_line(failure)}", code) from None


def build_frame(kind: FrameType, timestamp_ms: int, payload: bytes = b"") -> bytes:
    """Build a frame. Raises LocalProtocolError for what no frame can hold."""
    if kind in HEARTBEAT_TYPES:
        if payload:
            raise LocalProtocolError(f"{kind.name} carries no payload")
        layout, fields = Heartbeat, {}
    else:
        layout, fields = DataFrame, {"payload": payload}
    try:
        built: bytes = layout.build(
            {"type": kind, "timestamp_ms": timestamp_ms, **fields}, payload_limit_bytes=MAX_PAYLOAD_BYTES
        )
    except construct.ConstructError as failure:
        raise LocalProtocolError(f"no such frame: {_one_line(failure)}") from None
    return built


def _cut_off(data: bytes) -> RemoteProtocolError:
    """Judge a cut header by its magic alone, as far as there is one: its other fields count once it is whole."""
    if MAGIC.startswith(data[: len(MAGIC)]):
        return TruncatedFrame(f"the frame is cut off after {len(data)} bytes")
    return RemoteProtocolError(f"a frame begins with {MAGIC.hex()} ('HEAR')")


def _one_line(failure: construct.ConstructError) -> str:
    return ": ".join(str(failure).splitlines())
