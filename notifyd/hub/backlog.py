"""What a slow subscriber is behind with: per topic the messages that wait, and the offsets that were let go.

Pure bookkeeping, in bytes of the subscriber's form. Every step takes the same time however much waits.
"""

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from notifyd.hub.delivery import Delivery
from protocol.framing import Form, to_wire
from protocol.messages import Gap, encode
from protocol.position import Position

GAP_BYTES = 512
"""What a gap notice is counted as while it waits; it is written down only when it is sent."""


class Lost:
    """Offsets of one topic, without a hole, that a subscriber does not get; it stands where they would have stood."""

    __slots__ = ("epoch", "first", "last", "reason", "topic")

    def __init__(self, topic: str, first: Position, last: int | None = None, reason: str = "slow") -> None:
        self.topic = topic
        self.epoch = first.epoch
        self.first = first.offset
        self.last = first.offset if last is None else last
        self.reason = reason

    def extend(self, position: Position) -> bool:
        """Take in the offset that follows; False when it belongs to another run."""
        if position.epoch != self.epoch or position.offset != self.last + 1 or self.reason != "slow":
            return False
        self.last = position.offset
        return True

    def join(self, other: "Lost") -> bool:
        """Take in the run that follows; False when it does not follow directly."""
        if other.reason != self.reason or not self.extend(Position(other.epoch, other.first)):
            return False
        self.last = other.last
        return True

    def frame(self, form: Form) -> bytes:
        """Write the gap notice."""
        gap = Gap(topic=self.topic, first=self.first, last=self.last, reason=self.reason, epoch=self.epoch)
        return to_wire(form, encode(gap, form.encoding), 0)


class Backlog:
    """One topic's share of a slow connection's queue, in order. `message_bytes` is the size of the messages in it."""

    __slots__ = ("form", "items", "message_bytes", "topic")

    def __init__(self, topic: str, form: Form) -> None:
        self.topic = topic
        self.form = form
        self.items: deque[Delivery | Lost] = deque()
        self.message_bytes = 0

    @property
    def gap_bytes(self) -> int:
        """What dropping the oldest message adds: the gap that tells it, unless one is there already."""
        first = self.items[0] if self.items else None
        return GAP_BYTES if isinstance(first, Delivery) and first.position is not None else 0

    def append(self, item: Delivery | Lost) -> None:
        """Put a message, or a gap, behind what waits."""
        self.items.append(item)
        if isinstance(item, Delivery):
            self.message_bytes += len(item.frame(self.form))

    def take(self) -> Delivery | Lost:
        """Take what waits longest."""
        item = self.items.popleft()
        if isinstance(item, Delivery):
            self.message_bytes -= len(item.frame(self.form))
        return item

    def lose(self, newest: Delivery) -> int:
        """Leave a new message out and say so in its place; return the bytes this costs.

        What has no position is left out untold: there is nothing to name.
        """
        position = newest.position
        last = self.items[-1] if self.items else None
        if position is None or (isinstance(last, Lost) and last.extend(position)):
            return 0
        self.items.append(Lost(self.topic, position))
        return GAP_BYTES

    def drop_oldest(self) -> int:
        """Let the oldest message go, and tell it in the gap before it; return the bytes freed.

        Only to be called while `message_bytes` is not 0. The first of a run costs its gap: less than nothing is freed
        when it was smaller than that.
        """
        items = self.items
        gaps: list[Lost] = []
        while isinstance(oldest := items.popleft(), Lost):
            gaps.append(oldest)
        freed_bytes = len(oldest.frame(self.form))
        self.message_bytes -= freed_bytes
        if oldest.position is not None and not (gaps and gaps[-1].extend(oldest.position)):
            gaps.append(Lost(self.topic, oldest.position))
            freed_bytes -= GAP_BYTES
        following = items[0] if items else None
        if gaps and isinstance(following, Lost) and gaps[-1].join(following):
            items.popleft()
            freed_bytes += GAP_BYTES
        items.extendleft(reversed(gaps))
        return freed_bytes


Waiting: TypeAlias = bytes | Delivery | Lost | Backlog
"""What stands in a queue: one frame, or a slow topic's share."""


class Backlogs:
    """The backlogs in one connection's queue, which they are served from in turns; other frames keep their places.

    Made when the first is needed: it gathers what waits already. `queue` is changed in place.
    """

    __slots__ = ("_by_topic", "_form", "_queue")

    def __init__(self, queue: list[Waiting], form: Form) -> None:
        self._by_topic: dict[str, Backlog] = {}
        self._form = form
        self._queue = queue
        waiting = queue[:]
        queue.clear()
        for item in waiting:
            if isinstance(item, Delivery | Lost):
                self.of(item.topic).append(item)
            else:
                queue.append(item)

    def of(self, topic: str) -> Backlog:
        """Return a topic's backlog; a new one stands last in the queue."""
        backlog = self._by_topic.get(topic)
        if backlog is None:
            backlog = self._by_topic[topic] = Backlog(topic, self._form)
            self._queue.append(backlog)
        return backlog

    def forget(self, backlog: Backlog) -> None:
        """Take an empty backlog, which is the newest, out of the queue."""
        del self._by_topic[backlog.topic]
        self._queue.pop()

    def take(self, most_bytes: int) -> list[Waiting]:
        """Take about `most_bytes`, at least one item: one of each topic in turn, and other frames in between."""
        taken: list[Waiting] = []
        while self._queue and most_bytes > 0:
            item = self._queue.pop(0)
            if type(item) is Backlog:
                if len(item.items) > 1:
                    self._queue.append(item)
                else:
                    del self._by_topic[item.topic]
                item = item.take()
            taken.append(item)
            most_bytes -= _size_bytes(item, self._form)
        return taken


def take(queue: list[Waiting], most_bytes: int, form: Form) -> list[Waiting]:
    """Take about `most_bytes`, at least one item, off a queue without backlogs."""
    taken: list[Waiting] = []
    for item in queue:
        taken.append(item)
        most_bytes -= _size_bytes(item, form)
        if most_bytes <= 0:
            break
    del queue[: len(taken)]
    return taken


def _size_bytes(item: Waiting, form: Form) -> int:
    if type(item) is bytes:
        return len(item)
    assert not isinstance(item, bytes | Backlog)
    return len(item.frame(form))


def first_positions(items: Iterable[Waiting]) -> dict[str, Position]:
    """Tell each topic's first position among what waits."""
    first: dict[str, Position] = {}
    for item in items:
        if type(item) is Delivery and item.position is not None:
            first.setdefault(item.topic, item.position)
        elif type(item) is Lost:
            first.setdefault(item.topic, Position(item.epoch, item.first))
    return first
