"""What travels on a topic's channel, and what the topic's stream keeps.

A message is `m EPOCH : OFFSET : TIME : PACKED` without the spaces, written by lua/publish.lua: epoch and offset are
empty without history, the time is Redis's in Unix ms, PACKED is what the publishing node wrote with `pack_message`. A
change of presence is `p` and a MessagePack list.
"""

from typing import Any, Literal

import msgspec

from notifyd.model import Notification, SessionId
from protocol.messages import Joined, Left
from protocol.position import Position

MESSAGE = b"m"
CHANGE = b"p"

_encode = msgspec.msgpack.Encoder().encode
_decode_packed = msgspec.msgpack.Decoder(tuple[Any, str | None, str | None, str, int]).decode
_decode_change = msgspec.msgpack.Decoder(tuple[Literal["joined", "left"], str, str]).decode


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A message as it comes from a channel. `node` published it, and it was that node's `sequence`-th."""

    notification: Notification
    node: str
    sequence: int


def pack_message(data: Any, sender: str | None, origin: SessionId | None, node: str, sequence: int) -> bytes:
    """Write down what the publishing node knows of a message."""
    return _encode((data, sender, origin, node, sequence))


def read_message(topic: str, payload: bytes) -> Arrived:
    """Read a message that arrived on a topic's channel. Raises ValueError when it is none."""
    try:
        head, offset, time_ms, packed = payload.split(b":", 3)
        if head[:1] != MESSAGE or not time_ms.isdigit() or not (offset.isdigit() or head == MESSAGE):
            raise ValueError("it begins otherwise")
        data, sender, origin, node, sequence = _decode_packed(packed)
        position = Position(head[1:].decode(), int(offset)) if offset else None
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no message of a topic: {error}: {payload[:64]!r}") from None
    from_session = None if origin is None else SessionId(origin)
    return Arrived(Notification(topic, data, int(time_ms), position, sender, from_session), node, sequence)


def read_kept(topic: str, epoch: str, offset: int, time_ms: int, packed: bytes) -> Notification:
    """Read a message that a topic's stream kept. Raises ValueError when it is none."""
    try:
        data, sender, origin, _, _ = _decode_packed(packed)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no kept message: {error}: {packed[:64]!r}") from None
    from_session = None if origin is None else SessionId(origin)
    return Notification(topic, data, time_ms, Position(epoch, offset), sender, from_session)


def pack_change(change: Joined | Left) -> bytes:
    """Write down, as it is published, that somebody came or went."""
    return CHANGE + _encode(("joined" if isinstance(change, Joined) else "left", change.user, change.session))


def read_change(topic: str, payload: bytes) -> Joined | Left:
    """Read a change of presence that arrived on a topic's channel. Raises ValueError when it is none."""
    try:
        if payload[:1] != CHANGE:
            raise ValueError("it begins otherwise")
        kind, user, session = _decode_change(memoryview(payload)[1:])
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"no change of presence: {error}: {payload[:64]!r}") from None
    return (Joined if kind == "joined" else Left)(topic=topic, user=user, session=session)
