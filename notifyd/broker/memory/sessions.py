"""Sessions that wait for their clients to come back."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

from notifyd.broker.base import SessionRecord
from notifyd.broker.memory.history import SWEEP_SLICE
from notifyd.model import SessionId


class Holder(Protocol):
    """Who must remember positions that a session may come back with."""

    def hold(self, topic: str) -> None:
        """Remember the topic's position until it is released."""

    def release(self, topic: str) -> None:
        """Take back one `hold`."""


class SavedSession(NamedTuple):
    """A session and when it is given up, in monotonic seconds."""

    record: SessionRecord
    expires_s: float


class Sessions:
    """At most `limit` sessions, each for its time. One more, and the one that was saved first goes."""

    def __init__(self, limit: int, topics: Holder) -> None:
        self._limit = limit
        self._topics = topics
        self._waiting: OrderedDict[SessionId, SavedSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def save(self, record: SessionRecord, expires_s: float) -> None:
        """Keep a copy of a session; one of the same name is replaced."""
        self._drop(record.session)
        if len(self._waiting) >= self._limit:
            self._drop(next(iter(self._waiting)))
        kept = replace(record, positions=dict(record.positions))
        self._waiting[record.session] = SavedSession(kept, expires_s)
        for topic in kept.positions:
            self._topics.hold(topic)

    def take(self, session: SessionId, user: str, now_s: float) -> SessionRecord | None:
        """Take a session out; None when there is none or it is another user's, whose it then stays."""
        waiting = self._waiting.get(session)
        if waiting is None or waiting.record.user != user:
            return None
        self._drop(session)
        return waiting.record if waiting.expires_s > now_s else None

    def sweep(self, now_s: float) -> Iterator[None]:
        """Give up all sessions whose time is over; yields after each slice of sessions."""
        for number, (session, waiting) in enumerate(list(self._waiting.items()), start=1):
            if waiting.expires_s <= now_s and self._waiting.get(session) is waiting:
                self._drop(session)
            if number % SWEEP_SLICE == 0:
                yield

    def _drop(self, session: SessionId) -> None:
        waiting = self._waiting.pop(session, None)
        if waiting is not None:
            for topic in waiting.record.positions:
                self._topics.release(topic)
