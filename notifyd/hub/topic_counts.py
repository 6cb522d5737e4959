"""Messages by topic, counted only while somebody wants to know: otherwise it costs one look at a flag."""

from notifyd.broker.base import Accepted
from protocol.position import Continuity, Position


class TopicCount:
    """What one topic had since it was taken last: accepted here, put into clients' queues here, its newest position."""

    __slots__ = ("delivered", "position", "published")

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0
        self.position: Position | None = None


class TopicCounts:
    """The topics with messages. `is_counted` is for whoever counts: while it is False, nothing is to be told here."""

    __slots__ = ("_topics", "is_counted")

    def __init__(self) -> None:
        self.is_counted = False
        self._topics: dict[str, TopicCount] = {}

    def publish(self, topic: str, accepted: Accepted) -> None:
        """Count a message that was accepted here; one whose key is known was counted before."""
        if not accepted.repeated:
            one = self._topic(topic)
            one.published += 1
            one.position = newest(one.position, accepted.position)

    def deliver(self, topic: str, count: int, position: Position | None) -> None:
        """Count a message that so many clients of this node get."""
        one = self._topic(topic)
        one.delivered += count
        one.position = newest(one.position, position)

    def take(self) -> dict[str, TopicCount]:
        """Return what was counted since the last time, and begin anew."""
        taken, self._topics = self._topics, {}
        return taken

    def _topic(self, topic: str) -> TopicCount:
        one = self._topics.get(topic)
        if one is None:
            one = self._topics[topic] = TopicCount()
        return one


def newest(known: Position | None, seen: Position | None) -> Position | None:
    """Return which of two positions stays: a publisher's answer may come behind messages later than its own."""
    is_old = seen is None or (known is not None and known.judge(seen) is Continuity.DUPLICATE)
    return known if is_old else seen
