"""What can still be told of a message that failed to decode: its `op` and its `id`, so that it can be answered.

The line drawn here is between a wrong request, which is answered and forgiven, and bytes that are no message at all.
Slow and careful: nothing in here runs for a message that is right.

Source: spec/wire.md, "What a wrong message gets".
"""

import json
import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from protocol.errors import RemoteProtocolError
from protocol.framing import Encoding

MAX_ID = 2**32 - 1

MAX_STEPS = 10_000
"""Values stepped over to find the `op` of a message nested beyond the stack: some milliseconds of work, in vain."""


class Envelope(NamedTuple):
    """What every message must at least be. `id` is None where there is none, or not a valid one.

    `op` is None where telling it would cost too much: the message is nested beyond the decoder's stack, and long.
    """

    op: str | None
    id: int | None


_UNTOLD = Envelope(None, None)


class _RawEnvelope(Struct):
    op: str
    id: Raw = Raw(b"")


_json_envelope = msgspec.json.Decoder(_RawEnvelope).decode
_msgpack_envelope = msgspec.msgpack.Decoder(_RawEnvelope).decode
_json_id = msgspec.json.Decoder(int).decode
_msgpack_id = msgspec.msgpack.Decoder(int).decode


def check_utf8(payload: bytes | str) -> None:
    """Raise RemoteProtocolError unless JSON's bytes are UTF-8 throughout, in the parts that decoders skip too."""
    if type(payload) is bytes and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as failure:
            raise RemoteProtocolError(f"JSON is UTF-8 text: {failure.reason} at byte {failure.start}") from None


def read_envelope(payload: bytes | str, encoding: Encoding) -> Envelope:
    """Return the `op` and `id` of a message; raise RemoteProtocolError for bytes that are no message."""
    try:
        if encoding is Encoding.JSON:
            return _read_json(payload)
        return _read_msgpack(payload if isinstance(payload, bytes) else payload.encode())
    except msgspec.ValidationError as failure:
        raise RemoteProtocolError(f"not an object with a string 'op': {failure}") from None
    except (msgspec.DecodeError, UnicodeError) as failure:
        raise RemoteProtocolError(f"not {encoding.name}: {failure}") from None


def _read_json(payload: bytes | str) -> Envelope:
    check_utf8(payload)
    text = payload if isinstance(payload, str) else payload.decode()
    try:
        raw = _json_envelope(text)
    except RecursionError:
        outermost = _outermost_json(text)
        return _UNTOLD if outermost is None else _read_json(outermost)
    except (msgspec.DecodeError, UnicodeError):
        envelope = _with_lone_surrogates(text)
        if envelope is None:
            raise
        return envelope
    return Envelope(raw.op, _valid_id(_json_id, raw.id))


def _read_msgpack(payload: bytes) -> Envelope:
    try:
        raw = _msgpack_envelope(payload)
    except RecursionError:
        outermost = _outermost_msgpack(payload)
        if outermost is None:
            return _UNTOLD
        raw = _msgpack_envelope(outermost)
    return Envelope(raw.op, _valid_id(_msgpack_id, raw.id))


def _valid_id(decode: Any, raw: Raw) -> int | None:
    try:
        number: int = decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return number if 1 <= number <= MAX_ID else None


# --- JSON that msgspec calls malformed although its grammar allows it ------------------------------------------------


def _with_lone_surrogates(text: str) -> Envelope | None:
    """Read JSON with half a surrogate pair in a string, which RFC 8259 section 8.2 allows and no UTF-8 can carry."""
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        outermost = _outermost_json(text)
        return _UNTOLD if outermost is None else _with_lone_surrogates(outermost)
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        return None
    number = message.get("id")
    valid = type(number) is int and 1 <= number <= MAX_ID
    return Envelope(message["op"], number if valid else None)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# --- messages nested deeper than a decoder's stack: what is outermost is read without one -----------------------------

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _outermost_json(text: str) -> str | None:
    """Put null in the place of every list and object inside the outermost list or object; None after too many steps."""
    pieces: list[str] = []
    depth = copied = 0
    for step, token in enumerate(_JSON_TOKEN.finditer(text)):
        if step == MAX_STEPS:
            return None
        if token[0] in ("{", "["):
            depth += 1
            if depth == 2:
                pieces += (text[copied : token.start()], "null")
        elif token[0] in ("}", "]"):
            if depth == 2:
                copied = token.end()
            depth -= 1
    return "".join(pieces) + (text[copied:] if depth < 2 else "")


def _outermost_msgpack(payload: bytes) -> bytes | None:
    """Put nil in the place of every value that holds others inside the outermost map or list; None as above."""
    place, count = _msgpack_head(payload, 0)
    pieces = [payload[:place]]
    steps = 0
    for _ in range(count):
        stop, inside = _msgpack_head(payload, place)
        pieces.append(_NIL if inside else payload[place:stop])
        steps += 1
        while inside:
            stop, more = _msgpack_head(payload, stop)
            inside += more - 1
            steps += 1
            if steps == MAX_STEPS:
                return None
        place = stop
    return b"".join(pieces) + payload[place:]


_NIL = b"\xc0"
_COUNT_BYTES = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_CONTENT_BYTES = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_CONTENT_BYTES |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}


def _msgpack_head(payload: bytes, place: int) -> tuple[int, int]:
    """Return where the MessagePack value at `place` stops, and how many values inside it follow there."""
    if place >= len(payload):
        raise msgspec.DecodeError("Input data was truncated")
    kind = payload[place]
    place += 1
    if kind < 0x80 or kind >= 0xE0:
        return place, 0
    if kind < 0xA0:
        return place, (kind & 15) * (2 if kind < 0x90 else 1)
    if kind < 0xC0:
        return place + (kind & 31), 0
    size_bytes = _COUNT_BYTES.get(kind) or _LENGTH_BYTES.get(kind, 0)
    number = int.from_bytes(payload[place : place + size_bytes], "big")
    place += size_bytes
    if kind in _COUNT_BYTES:
        return place, number * (2 if kind >= 0xDE else 1)
    is_extension = 0xC7 <= kind <= 0xC9
    return place + number + is_extension + _CONTENT_BYTES.get(kind, 0), 0
