"""The history of one topic: its positions, the newest of its messages, and the proof of what is still whole.

A message is kept as one MessagePack value, not as Python objects: its size is then known exactly, a reader cannot
change what the next one gets, and the garbage collector has nothing to walk through.
"""

import secrets
from collections import deque
from itertools import islice
from typing import Any, Literal

import msgspec

from notifyd.broker.base import Page, Retention
from notifyd.model import Notification, SessionId
from protocol.position import Position

EPOCH_BYTES = 6
"""Randomness in an epoch: two lives of one topic share a name once in 2^48."""

MESSAGE_OVERHEAD_BYTES = 160
"""What CPython spends on a kept message beside its packed bytes: a tuple, a float, a bytes header, a place in line."""

HISTORY_OVERHEAD_BYTES = 1536
"""What it spends on a topic while messages are kept: an empty deque, this object, its names and its places in line."""

SWEEP_SLICE = 1000
"""Expired things looked at between two chances for other tasks to run: well below a millisecond."""


class _Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    data: Any
    time_ms: int
    sender: str | None
    origin: str | None
    trace: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode

_NO_MESSAGES: deque[tuple[float, bytes]] = deque(maxlen=0)


def pack(data: Any, time_ms: int, sender: str | None, origin: SessionId | None, trace: str | None = None) -> bytes:
    """Write a message down in the form in which it is kept. A trace takes its bytes only where there is one."""
    return _encode((data, time_ms, sender, origin) if trace is None else (data, time_ms, sender, origin, trace))


class TopicHistory:
    """Positions of one topic and the messages kept of it.

    `top` is the newest offset given. The messages kept are always the newest ones without a hole: everything at or
    below `trimmed` is gone for good. Times are monotonic seconds and never run backwards. `queued` belongs to
    `OldestFirst`.
    """

    __slots__ = ("_messages", "epoch", "kept_bytes", "queued", "retention", "top", "topic")

    def __init__(self, topic: str, retention: Retention) -> None:
        self.topic = topic
        self.retention = retention
        self.epoch = secrets.token_hex(EPOCH_BYTES)
        self.top = 0
        self.kept_bytes = 0
        self.queued = False
        self._messages = _NO_MESSAGES

    @property
    def position(self) -> Position:
        """The newest position; offset 0 before the first message."""
        return Position(self.epoch, self.top)

    @property
    def trimmed(self) -> int:
        """The newest offset that is gone; 0 when nothing is."""
        return self.top - len(self._messages)

    @property
    def oldest_s(self) -> float:
        """When the oldest kept message was accepted; only to be asked while there is one."""
        return self._messages[0][0]

    def append(self, now_s: float, packed: bytes) -> Position:
        """Keep a message, let go of those that this one displaces or that are too old, return its position."""
        messages = self._messages
        if messages is _NO_MESSAGES:
            messages = self._messages = deque()
            self.kept_bytes = HISTORY_OVERHEAD_BYTES
        messages.append((now_s, packed))
        self.kept_bytes += len(packed) + MESSAGE_OVERHEAD_BYTES
        self.top = top = self.top + 1
        if len(messages) > self.retention.history or messages[0][0] <= now_s - self.retention.ttl_s:
            self.trim(now_s)
        return Position(self.epoch, top)

    def trim(self, now_s: float) -> None:
        """Let go of what the retention no longer covers."""
        keep, dead_s = self.retention.history, now_s - self.retention.ttl_s
        while self._messages and (len(self._messages) > keep or self._messages[0][0] <= dead_s):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Let go of the oldest message; with the last one goes everything that costs memory but the position."""
        if len(self._messages) > 1:
            self.kept_bytes -= len(self._messages.popleft()[1]) + MESSAGE_OVERHEAD_BYTES
        else:
            self.drop_all()

    def drop_all(self) -> None:
        """Let go of every message; the position stays."""
        self._messages = _NO_MESSAGES
        self.kept_bytes = 0

    def read(self, since: Position | Literal["earliest", "latest"], limit: int) -> Page:
        """Answer up to `limit` of the messages after `since`, as `notifyd.broker.base.Broker.history` promises."""
        if since == "latest":
            return Page((), self.position, continuous=True, more=False)
        if since == "earliest":
            return self._page(self.trimmed, limit, continuous=self.trimmed == 0)
        if since.epoch != self.epoch or not self.trimmed <= since.offset <= self.top:
            return Page((), self.position, continuous=False, more=False)
        return self._page(since.offset, limit, continuous=True)

    def _page(self, after: int, limit: int, *, continuous: bool) -> Page:
        """Read messages from offset `after + 1` on, which is kept or the one that comes next."""
        last = min(after + limit, self.top)
        first = self.trimmed + 1
        packed = _slice(self._messages, after + 1 - first, last + 1 - first)
        messages = [self._unpack(offset, message) for offset, (_, message) in enumerate(packed, start=after + 1)]
        return Page(messages, self.position, continuous, more=last < self.top)

    def _unpack(self, offset: int, packed: bytes) -> Notification:
        kept = _decode(packed)
        position = Position(self.epoch, offset)
        origin = None if kept.origin is None else SessionId(kept.origin)
        return Notification(self.topic, kept.data, kept.time_ms, position, kept.sender, origin, kept.trace)


def _slice(messages: deque[tuple[float, bytes]] | tuple[()], start: int, stop: int) -> list[tuple[float, bytes]]:
    """Return `messages[start:stop]`, walking a deque from its nearer end: most readers miss only the newest."""
    if start <= len(messages) // 2:
        return list(islice(messages, start, stop))
    newest_first = islice(reversed(messages), len(messages) - stop, len(messages) - start)
    return list(newest_first)[::-1]
