"""What a broker must answer, worked out in the simplest way: by remembering everything that ever happened to it."""

from dataclasses import dataclass, field
from typing import Any

from notifyd.broker.base import Accepted, Page, Retention
from notifyd.model import Notification
from protocol.position import Position


@dataclass
class Kept:
    """A message that must still be there."""

    message: Any
    position: Position
    accepted_s: float


@dataclass
class Topic:
    """Everything ever accepted on a topic, when each position was current, and what must still be kept."""

    log: list[tuple[Any, Position | None]] = field(default_factory=list)
    seen: dict[Position, int] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    retention: Retention = field(default=Retention(0, 0.0))

    def trim(self, now_s: float, retention: Retention | None = None) -> None:
        """Apply a retention, or the last one known."""
        self.retention = retention or self.retention
        alive = [kept for kept in self.kept if now_s - kept.accepted_s < self.retention.ttl_s]
        self.kept = alive[len(alive) - self.retention.history :] if self.retention.history < len(alive) else alive


class Oracle:
    """Judges every answer of a broker. With `exact` it must keep all that its retention allows; otherwise be honest."""

    def __init__(self, *, key_ttl_s: float, exact: bool) -> None:
        self.now_s = 0.0
        self.topics: dict[str, Topic] = {}
        self.deliveries: list[tuple[str, Any, Position | None]] = []
        self.subscribed: set[str] = set()
        self._exact = exact
        self._key_ttl_s = key_ttl_s
        self._keys: dict[tuple[str, str], tuple[float, Position | None]] = {}

    def topic(self, name: str) -> Topic:
        return self.topics.setdefault(name, Topic())

    def known_position(self, name: str, choice: int) -> Position:
        """Return one of the positions ever seen on a topic."""
        seen = list(self.topic(name).seen) or [Position("unknown", 0)]
        return seen[choice % len(seen)]

    def published(self, name: str, value: Any, retention: Retention, key: str | None, answer: Accepted) -> None:
        """Judge the answer to a publish, and take note of the message."""
        if key is not None:
            accepted_s, position = self._keys.get((name, key), (None, None))
            known = accepted_s is not None and self.now_s - accepted_s < self._key_ttl_s
            assert answer.repeated == known
            if known:
                assert answer.position == position
                return
            self._keys[name, key] = (self.now_s, answer.position)
        assert not answer.repeated
        self._accepted(name, value, retention, answer.position)

    def _accepted(self, name: str, value: Any, retention: Retention, position: Position | None) -> None:
        topic = self.topic(name)
        assert (position is None) == (retention.history == 0)
        if name in self.subscribed:
            self.deliveries.append((name, value, position))
        topic.log.append((value, position))
        if position is None:
            topic.kept.clear()
            return
        self._judge_new_position(topic, position)
        topic.seen[position] = len(topic.log)
        topic.kept.append(Kept(value, position, self.now_s))
        topic.trim(self.now_s, retention)

    def _judge_new_position(self, topic: Topic, position: Position) -> None:
        """Check that offsets are contiguous, and that only a message without position (or a bound) ended the epoch."""
        epoch = {seen.offset for seen in topic.seen if seen.epoch == position.epoch}
        assert position.offset == max(epoch, default=0) + 1
        positioned = [place for _, place in topic.log[:-1]]
        if self._exact and positioned and positioned[-1] is not None:
            assert position.epoch == positioned[-1].epoch

    def read(self, name: str, since: Any, limit: int, retention: Retention, page: Page) -> None:
        """Judge the answer to a history request."""
        topic = self.topic(name)
        topic.trim(self.now_s, retention)
        if retention.history == 0:
            assert page == Page((), None, continuous=since == "latest", more=False)
            return
        assert page.top is not None
        topic.seen.setdefault(page.top, len(topic.log))
        got = [(message.data, message.position) for message in page.messages]
        if since == "latest":
            assert (got, page.continuous, page.more) == ([], True, False)
        elif since == "earliest":
            self._judge_earliest(topic, limit, page, got)
        elif page.continuous:
            missed = topic.log[topic.seen[since] :]
            assert got == missed[:limit]
            assert page.more == (len(missed) > limit)
        else:
            assert (got, page.more) == ([], False)
            assert not self._exact or not self._covers(topic, since, page.top)

    def _judge_earliest(self, topic: Topic, limit: int, page: Page, got: list[tuple[Any, Position | None]]) -> None:
        """Everything kept: the newest messages without a hole; continuous when they are the whole epoch."""
        assert page.top is not None
        epoch = [entry for entry in topic.log if entry[1] is not None and entry[1].epoch == page.top.epoch]
        first = got[0][1].offset if got and got[0][1] else page.top.offset + 1
        assert got == epoch[first - 1 :][:limit]
        assert page.more == (first - 1 + len(got) < len(epoch))
        assert page.continuous == (first == 1)
        if self._exact:
            assert got == [(kept.message, kept.position) for kept in topic.kept][:limit]

    @staticmethod
    def _covers(topic: Topic, since: Position, top: Position) -> bool:
        """Whether everything after a position is still kept, or nothing came after it."""
        if since.epoch != top.epoch or since not in topic.seen:
            return False
        return since.offset >= top.offset - len(topic.kept)

    def delivered(self, deliveries: list[Notification]) -> None:
        """Judge all deliveries so far: each accepted message once, in order, and nothing for a repeated key."""
        assert [(message.topic, message.data, message.position) for message in deliveries] == self.deliveries
