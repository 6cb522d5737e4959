"""What was replayed last, for those who missed the same: a crowd that comes back to a topic reads its history once.

Every method is synchronous; times are Trio's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from notifyd.broker.base import Page
from notifyd.hub.delivery import Delivery
from notifyd.hub.registry import Topic
from notifyd.model import Notification
from notifyd.settings import TopicPolicy
from protocol.messages import Since
from protocol.position import Position

KEPT_S = 1.0
"""How long a page is given again: those of a crowd that come one after the other, and hardly what expires meanwhile."""

PAGES_KEPT = 32
PAGE_BYTES = 64 * 1024
"""Larger pages, by their frames, are read by everybody anew: all that are kept are a few megabytes."""


@dataclass(slots=True, eq=False)
class Replay:
    """A page of a topic's history as it goes out, written down once for all who get it.

    It was read from the position `since` on, at `read_s`, under the topic's `policy` of that time.
    """

    since: Since
    page: Page
    deliveries: Sequence[Delivery]
    policy: TopicPolicy
    read_s: float

    @classmethod
    def of(cls, topic: Topic, since: Since, page: Page) -> "Replay":
        """Make the deliveries of a page that was just read."""
        deliveries = [Delivery.of(notification, topic.policy) for notification in page.messages]
        return cls(since, page, deliveries, topic.policy, trio.current_time())


class Replays:
    """The small pages of the last moment, by topic and the position they were read from.

    A page is good for a subscription that is registered now when nothing newer than its end was delivered here: what
    comes later reaches the subscription live. That is known for as long as the topic had subscribers without a pause,
    which its `Topic` stands for, and messages had positions.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Since], tuple[Topic, Replay]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, topic: Topic, since: Since) -> Replay | None:
        """Return what a read of the topic from here on would tell; None where it has to be read."""
        of, replay = self._kept.get((topic.name, since), (None, None))
        if replay is None or of is not topic or replay.policy is not topic.policy:
            return None
        if trio.current_time() >= replay.read_s + KEPT_S or not _reaches(replay.page.top, topic.position):
            return None
        return replay

    def keep(self, topic: Topic, replay: Replay, size_bytes: int) -> None:
        """Keep a page for those who missed the same, where there may be such; `size_bytes` is that of its frames.

        Not the newest position alone: whoever wants that wants nothing older.
        """
        if topic.subscribers < 2 or replay.since == "latest" or not replay.page.continuous or size_bytes > PAGE_BYTES:
            return
        key = topic.name, replay.since
        self._kept[key] = topic, replay
        self._kept.move_to_end(key)
        if len(self._kept) > PAGES_KEPT:
            self._kept.popitem(last=False)

    def heed(self, batch: Sequence[Notification]) -> None:
        """Take note of what is delivered: a message without a position ends what was proved of its topic."""
        if not self._kept:
            return
        _, newest = next(reversed(self._kept.values()))
        if trio.current_time() >= newest.read_s + KEPT_S:
            self._kept.clear()
        unplaced = {notification.topic for notification in batch if notification.position is None}
        for key in [key for key in self._kept if key[0] in unplaced]:
            del self._kept[key]


def _reaches(top: Position | None, delivered: Position | None) -> bool:
    """Whether a page that ends here has all that was delivered."""
    if top is None or delivered is None:
        return top is not None
    return top.epoch == delivered.epoch and top.offset >= delivered.offset
