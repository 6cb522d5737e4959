"""Which message of all topics is the oldest: asked when the memory for histories is used up."""

from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

from notifyd.broker.memory.history import TopicHistory

COMPACT_ENTRIES = 1024
"""Below so many entries the queue is not searched for topics that lost their messages otherwise."""


class OldestFirst:
    """A queue of the topics that keep messages, by the age of their oldest one.

    An entry says how old its topic's oldest message was when somebody last looked. It may have been trimmed since,
    which makes the true age smaller, never larger: so an entry is corrected only when it comes to the front, and a
    publish costs nothing here but on a topic that kept no message before. Messages accepted at the same instant are
    equally old.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, TopicHistory]] = []
        self._serial = count()
        self._compact_at = COMPACT_ENTRIES

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, history: TopicHistory) -> None:
        """Take in a topic that has begun to keep messages; one that is here already stays where it is."""
        if history.queued:
            return
        if len(self._entries) >= self._compact_at:
            self._compact()
        history.queued = True
        heappush(self._entries, self._entry(history))

    def oldest(self) -> TopicHistory:
        """Return the topic that keeps the oldest message of all. At least one message must be kept somewhere."""
        while True:
            seen_s, _, history = self._entries[0]
            if not history.kept_bytes:
                history.queued = False
                heappop(self._entries)
            elif history.oldest_s > seen_s:
                heapreplace(self._entries, self._entry(history))
            else:
                return history

    def _entry(self, history: TopicHistory) -> tuple[float, int, TopicHistory]:
        return history.oldest_s, next(self._serial), history

    def _compact(self) -> None:
        """Leave out the topics without messages, so that the queue is never more than twice as long as it must be."""
        kept = []
        for entry in self._entries:
            entry[2].queued = entry[2].kept_bytes > 0
            if entry[2].queued:
                kept.append(entry)
        heapify(kept)
        self._entries = kept
        self._compact_at = max(COMPACT_ENTRIES, 2 * len(kept))
