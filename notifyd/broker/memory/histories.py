"""The histories of all topics under one budget of bytes, and which topics are remembered when they keep nothing."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from notifyd.broker.base import Page, Retention
from notifyd.broker.memory.history import SWEEP_SLICE, TopicHistory
from notifyd.broker.memory.oldest import OldestFirst
from protocol.position import Position


class Histories:
    """Every topic that has positions.

    Above `memory_bytes` the oldest messages of all topics go first. A topic is idle when it keeps no messages and
    nobody holds on to it; of the idle ones the `idle_limit` most recently used are remembered. A forgotten topic begins
    a new epoch when it is used again, so an old position is answered with `continuous=False`, never wrongly with True.
    """

    def __init__(self, *, memory_bytes: int, idle_limit: int) -> None:
        self.kept_bytes = 0
        self._memory_bytes = memory_bytes
        self._idle_limit = idle_limit
        self._histories: dict[str, TopicHistory] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._holds: dict[str, int] = {}
        self._by_age = OldestFirst()

    def append(self, topic: str, retention: Retention, now_s: float, packed: bytes) -> Position:
        """Keep a message, as `pack` wrote it, and return its position. `retention` must ask for history."""
        history = self._histories.get(topic)
        if history is None:
            history = self._histories[topic] = TopicHistory(topic, retention)
        history.retention = retention
        before_bytes = history.kept_bytes
        position = history.append(now_s, packed)
        self.kept_bytes += history.kept_bytes - before_bytes
        if not (before_bytes and history.kept_bytes):
            self._settle(history)
        if self.kept_bytes > self._memory_bytes:
            self._shrink()
        return position

    def read(
        self,
        topic: str,
        since: Position | Literal["earliest", "latest"],
        limit: int,
        retention: Retention,
        now_s: float,
    ) -> Page:
        """Answer what is kept after `since`. A topic without positions gets its epoch now, so that it has a top."""
        history = self._histories.get(topic)
        if retention.history <= 0:
            if history is not None:
                self._trim(history, retention, now_s)
            return Page((), None, continuous=since == "latest", more=False)
        if history is None:
            history = self._histories[topic] = TopicHistory(topic, retention)
        self._trim(history, retention, now_s)
        return history.read(since, limit)

    def end_epoch(self, topic: str) -> None:
        """Forget a topic: a message was published that got no position, so the old positions prove nothing any more."""
        history = self._histories.pop(topic, None)
        if history is not None:
            self.kept_bytes -= history.kept_bytes
            history.drop_all()
            self._idle.pop(topic, None)

    def hold(self, topic: str) -> None:
        """Remember this topic's position, whatever happens, until `release` was called as often."""
        self._holds[topic] = self._holds.get(topic, 0) + 1
        self._idle.pop(topic, None)

    def release(self, topic: str) -> None:
        """Take back one `hold`."""
        self._holds[topic] -= 1
        if not self._holds[topic]:
            del self._holds[topic]
            if topic in self._histories:
                self._settle(self._histories[topic])

    def positions(self) -> dict[str, Position]:
        """Return the newest position of every topic that has one."""
        return {topic: history.position for topic, history in self._histories.items()}

    def sweep(self, now_s: float) -> Iterator[None]:
        """Let go of all messages that are too old; yields after each slice of topics."""
        for number, history in enumerate(list(self._histories.values()), start=1):
            if history.kept_bytes:
                self._trim(history, history.retention, now_s)
            if number % SWEEP_SLICE == 0:
                yield

    def _trim(self, history: TopicHistory, retention: Retention, now_s: float) -> None:
        history.retention = retention
        self.kept_bytes -= history.kept_bytes
        history.trim(now_s)
        self.kept_bytes += history.kept_bytes
        if not history.kept_bytes:
            self._settle(history)

    def _shrink(self) -> None:
        while self.kept_bytes > self._memory_bytes:
            history = self._by_age.oldest()
            self.kept_bytes -= history.kept_bytes
            history.drop_oldest()
            self.kept_bytes += history.kept_bytes
            if not history.kept_bytes:
                self._settle(history)

    def _settle(self, history: TopicHistory) -> None:
        """Put a topic where it belongs after it began or ceased to keep messages, was used or was released."""
        topic = history.topic
        if history.kept_bytes:
            self._idle.pop(topic, None)
            self._by_age.add(history)
        elif topic not in self._holds:
            self._idle[topic] = None
            self._idle.move_to_end(topic)
            if len(self._idle) > self._idle_limit:
                del self._histories[self._idle.popitem(last=False)[0]]
