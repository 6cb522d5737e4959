"""What travels on a topic's channel, and what the topic's stream keeps.

A message is `m EPOCH : OFFSET : TIME : PACKED` without the spaces, written by lua/publish.lua: epoch and offset are
empty without history, the time is Redis's in Unix ms, PACKED is what the publishing node wrote with `pack_message`: a
list, which grows at its end. A change of presence is `p` and a MessagePack list.

Whoever can publish in this Redis can send anything here. What is read is therefore checked: that every node can write
it down again for its clients is what the hub relies on.
"""

from typing import Any, Literal

import msgspec

from notifyd.model import Notification, SessionId
from protocol.codec import MAX_PAYLOAD_BYTES
from protocol.data import check_data
from protocol.errors import RequestError
from protocol.messages import Joined, Left
from protocol.position import MAX_OFFSET, Position
from protocol.trace import read_trace

MESSAGE = b"m"
CHANGE = b"p"

MOST_TIME_MS = 2**63 - 1
MOST_EPOCH_CHARACTERS = 1024
MOST_CHANGE_BYTES = 64 * 1024
"""A change of presence has two names, and those are as long as a token allows at most."""

REST_BYTES = 64 * 1024
"""What a message takes beside data and sender, at most."""

SURE_TO_FIT_BYTES = MAX_PAYLOAD_BYTES // 6 - REST_BYTES
"""JSON takes six bytes at most for one of MessagePack."""


class _Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    data: Any
    sender: str | None
    origin: str | None
    node: str
    sequence: int
    trace: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_packed = msgspec.msgpack.Decoder(_Packed).decode
_decode_change = msgspec.msgpack.Decoder(tuple[Literal["joined", "left"], str, str]).decode


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message as it comes from a channel. `node` published it, and it was that node's `sequence`-th."""

    notification: Notification
    node: str
    sequence: int


def pack_message(
    data: Any, sender: str | None, origin: SessionId | None, node: str, sequence: int, *, trace: str | None = None
) -> bytes:
    """Write down what the publishing node knows of a message. A trace takes its bytes only where there is one."""
    if trace is None:
        return _encode((data, sender, origin, node, sequence))
    return _encode((data, sender, origin, node, sequence, trace))


def read_message(topic: str, payload: bytes) -> Arrived:
    """Read a message that arrived on a topic's channel. Raises ValueError when it is none that clients could get."""
    try:
        head, offset, time_ms, packed = payload.split(b":", 3)
        if head[:1] != MESSAGE or not time_ms.isdigit() or not (offset.isdigit() or head == MESSAGE):
            raise ValueError("it begins otherwise")
        position = Position(head[1:].decode(), int(offset)) if offset else None
        message, node, sequence = _unpack(topic, packed, int(time_ms), position)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no message of a topic: {error}; it has {len(payload)} bytes") from None
    return Arrived(message, node, sequence)


def read_kept(topic: str, epoch: str, offset: int, time_ms: int, packed: bytes) -> Notification:
    """Read a message that a topic's stream kept. Raises ValueError when it is none that clients could get."""
    try:
        return _unpack(topic, packed, time_ms, Position(epoch, offset))[0]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no kept message: {error}; it has {len(packed)} bytes") from None


def _unpack(topic: str, packed: bytes, time_ms: int, position: Position | None) -> tuple[Notification, str, int]:
    read = _decode_packed(packed)
    if time_ms > MOST_TIME_MS or (position is not None and not _is_sound(position)):
        raise ValueError("its time or its position is beyond all limits")
    try:
        check_data(read.data)
    except RequestError as error:
        raise ValueError(str(error)) from None
    if len(packed) > SURE_TO_FIT_BYTES and len(_encode_json((read.data, read.sender))) > MAX_PAYLOAD_BYTES - REST_BYTES:
        raise ValueError("it does not fit a frame")
    origin = None if read.origin is None else SessionId(read.origin)
    trace = None if read.trace is None else read_trace(read.trace)
    return Notification(topic, read.data, time_ms, position, read.sender, origin, trace), read.node, read.sequence


def _is_sound(position: Position) -> bool:
    return 0 < position.offset <= MAX_OFFSET and 0 < len(position.epoch) <= MOST_EPOCH_CHARACTERS


def pack_change(change: Joined | Left) -> bytes:
    """Write down, as it is published, that somebody came or went."""
    return CHANGE + _encode(("joined" if isinstance(change, Joined) else "left", change.user, change.session))


def read_change(topic: str, payload: bytes) -> Joined | Left:
    """Read a change of presence that arrived on a topic's channel. Raises ValueError when it is none."""
    try:
        if payload[:1] != CHANGE:
            raise ValueError("it begins otherwise")
        if len(payload) > MOST_CHANGE_BYTES:
            raise ValueError(f"it has {len(payload)} bytes")
        kind, user, session = _decode_change(memoryview(payload)[1:])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no change of presence: {error}; it has {len(payload)} bytes") from None
    return (Joined if kind == "joined" else Left)(topic=topic, user=user, session=session)
