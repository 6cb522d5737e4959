"""`notifyd decode`."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from construct import Container

NOT_HEX = re.compile(rb"[^0-9A-Fa-f]")
SEPARATORS = re.compile(rb"0[xX]|[\s:,]+")


def decode(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[HEX|-]", help="Frames in hex; - reads hex or raw bytes from stdin.")
    ] = None,
) -> None:
    """Print frames field by field. Exits 1 where bytes are no frame, and says which byte it is."""
    from notifyd.errors import NotifydError

    if not data and sys.stdin.isatty():
        raise typer.BadParameter("nothing to decode: give frames in hex, or - and the bytes on stdin")
    if data and data != ["-"]:
        content = read_hex(" ".join(data).encode("latin-1", "replace"))
    else:
        content = read_input(sys.stdin.buffer.read())
    if not content:
        raise NotifydError("notifyd decode: no bytes; a frame has at least 16")
    for line in describe_frames(content):
        print(line)


def read_hex(text: bytes) -> bytes:
    """Read hex digits; white space, colons, commas and 0x may stand between them. Raises NotifydError."""
    from notifyd.errors import NotifydError

    digits = SEPARATORS.sub(b"", text)
    if wrong := NOT_HEX.search(digits):
        place = text.find(wrong[0])
        shown = wrong[0].decode("latin-1")
        raise NotifydError(f"notifyd decode: {shown!r} at character {place + 1} is no hex digit")
    if len(digits) % 2:
        raise NotifydError(f"notifyd decode: {len(digits)} hex digits are no whole number of bytes; one is missing")
    return bytes.fromhex(digits.decode())


def read_input(content: bytes) -> bytes:
    """Read stdin: raw frames, or hex where all of it is plain text."""
    is_text = content.isascii() and all(map(_is_text, content.decode("latin-1")))
    return read_hex(content) if is_text and not content.startswith(b"HEAR") else content


def _is_text(character: str) -> bool:
    return character.isprintable() or character.isspace()


def describe_frames(content: bytes) -> Iterator[str]:
    """Yield the lines for all frames in `content`. Raises NotifydError at the byte where it stops being frames."""
    from notifyd.errors import NotifydError
    from protocol.codec import MAX_PAYLOAD_BYTES
    from protocol.errors import RemoteProtocolError
    from protocol.frames import parse_frame

    start, number = 0, 0
    while start < len(content):
        number += 1
        rest = content[start:]
        try:
            frame = parse_frame(rest, MAX_PAYLOAD_BYTES)
        except RemoteProtocolError:
            place, problem = find_fault(rest)
            raise NotifydError(f"frame {number}, byte {start + place} of the input: {problem}") from None
        yield f"frame {number}: bytes {start} to {start + frame.size_bytes - 1}"
        yield from describe_frame(frame, rest, f"frame {number}, byte {start + 16} of the input")
        start += frame.size_bytes


def describe_frame(frame: "Container", raw: bytes, place: str) -> Iterator[str]:
    """Yield a line a field: name, bytes, meaning. Raises NotifydError, naming `place`, for a payload that is none."""
    from protocol.codec import FrameType

    kind = FrameType(frame.type)
    yield f"  magic      {raw[0:4].hex():18}{frame.magic.decode()}"
    yield f"  type       {raw[4:5].hex():18}{kind.name}"
    yield f"  timestamp  {raw[5:13].hex():18}{describe_time(kind, frame.timestamp_ms)}"
    if kind <= FrameType.PONG:
        yield f"  reserved   {raw[13:16].hex():18}zero, as in every heartbeat"
        return
    yield f"  length     {raw[13:16].hex():18}{describe_length(frame.payload_bytes)}"
    yield f"  payload    {read_payload(kind, frame.payload, place)}"


def describe_time(kind: int, timestamp_ms: int) -> str:
    """Say what a timestamp means in a frame of this type."""
    from protocol.codec import FrameType

    if kind == FrameType.PING:
        return f"{timestamp_ms} ms on the sender's clock"
    if kind == FrameType.PONG:
        return f"{timestamp_ms} ms, echoed from the PING"
    if not timestamp_ms:
        return "0, no clock"
    try:
        return f"{timestamp_ms} ms, {datetime.fromtimestamp(timestamp_ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms, beyond the calendar"


def describe_length(payload_bytes: int) -> str:
    """Say how long the payload is, and whether a node with default limits would take it."""
    from protocol.codec import DEFAULT_PAYLOAD_LIMIT_BYTES

    refused = payload_bytes > DEFAULT_PAYLOAD_LIMIT_BYTES
    limit = f", above the default limit of {DEFAULT_PAYLOAD_LIMIT_BYTES}" if refused else ""
    return f"{payload_bytes} byte{'s'[: payload_bytes != 1]}{limit}"


def read_payload(kind: int, payload: bytes, place: str) -> str:
    """Return the payload as JSON text. Raises NotifydError where it is not what the frame's type says."""
    import msgspec

    from notifyd.errors import NotifydError
    from protocol.codec import FrameType

    is_json = kind == FrameType.JSON
    decoder: Any = msgspec.json.decode if is_json else msgspec.msgpack.decode
    try:
        value = decoder(payload)
        return msgspec.json.encode(value, enc_hook=_show_extension).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise NotifydError(f"{place}: the payload is not {'JSON' if is_json else 'MessagePack'}: {reason}") from None


def _show_extension(value: Any) -> str:
    """Write down a MessagePack extension: the one thing a payload can hold that JSON has no word for."""
    return f"extension type {value.code}: {value.data.hex()}"


def find_fault(data: bytes) -> tuple[int, str]:
    """Return the first byte that no frame can have there, or at which the frame is cut off, and what is wrong."""
    from protocol.codec import HEADER_BYTES, MAGIC, FrameType

    for place, (own, wanted) in enumerate(zip(data, MAGIC, strict=False)):
        if own != wanted:
            return place, f"{own:#04x} where the magic 48454152 ('HEAR') has {wanted:#04x}"
    if len(data) < HEADER_BYTES:
        return len(data), f"the input ends after {len(data)} of the 16 bytes of a header"
    if data[4] not in FrameType.__members__.values():
        return 4, f"type {data[4]} is unknown; 0 PING, 1 PONG, 2 JSON and 3 MSGPACK are defined"
    if data[4] <= FrameType.PONG:
        place = next(place for place in range(13, 16) if data[place])
        return place, f"{data[place]:#04x} in the reserved bytes of a heartbeat, which are zero"
    announced = int.from_bytes(data[13:16], "big")
    return len(data), f"the input ends after {len(data) - HEADER_BYTES} of the {announced} bytes of the payload"
