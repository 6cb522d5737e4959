"""Each topic's messages in order: what comes next is handed on, what repeats is dropped, a hole is filled or told.

What arrives on a channel is right as long as its connection lives. Across reconnects, failovers and retries it is not;
positions tell. A topic whose next message is missing is held until the history has filled the hole: what it has no more
is told as a `Loss`. The same happens to every topic after a reconnect, whether anything arrives or not.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import trio

from notifyd.broker.base import Loss, Page, Receiver, Retention
from notifyd.broker.redis.envelope import Arrived
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.model import Notification
from notifyd.policy.deduplication import Deduplication
from protocol.messages import Since
from protocol.position import Continuity, Position

REPAIR_PAGE_MESSAGES = 100
"""Messages read at once to fill a hole: as many as a replay to one client."""

MOST_HELD = 1_000
"""Messages held behind one hole. More of them are read from the history instead."""

REPAIRS_AT_ONCE = 32
"""Topics repaired at the same time: enough to fill a link, and no flood for a server that has just come back."""

FRUITLESS_REPAIRS = 5
FRUITLESS_PAUSE_S = 0.1
"""A hole that the history cannot fill though it says that nothing is missing is told as a loss after so many tries."""

ReadPage: TypeAlias = Callable[[str, Since, int, Retention], Awaitable[Page]]
RenewEpoch: TypeAlias = Callable[[str, Position], Awaitable[None]]
"""Ends a topic's epoch, since somebody was given a position that its history has not come to."""


class TopicOrder:
    """One subscribed topic. `position` is the newest handed on, None while unknown.

    `held` are the messages behind a hole, None while there is none. `unsure` says that messages may have been missed
    which nothing that arrives will tell of. `repairing` says that a task is at it.
    """

    __slots__ = ("held", "position", "repairing", "retention", "unsure")

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.position: Position | None = None
        self.held: list[Notification] | None = None
        self.unsure = False
        self.repairing = False


class Ordering:
    """The subscribed topics of a node. `run` is the service that repairs; all else is synchronous."""

    def __init__(self, receiver: Receiver, read: ReadPage, renew: RenewEpoch, events: Events) -> None:
        self._receiver = receiver
        self._read = read
        self._renew = renew
        self._events = events
        self._tracks: dict[str, TopicOrder] = {}
        self._repeats = Deduplication()
        self._broken: dict[str, None] = {}
        self._work = trio.lowlevel.ParkingLot()
        self._back = trio.Event()

    def __len__(self) -> int:
        return len(self._tracks)

    # --- which topics ------------------------------------------------------------------------------------------------

    def follow(self, topic: str, retention: Retention) -> None:
        """Let a topic's messages through from now on."""
        track = self._tracks.get(topic)
        if track is None:
            self._tracks[topic] = TopicOrder(retention)
        else:
            track.retention = retention

    def forget(self, topic: str) -> None:
        """Let nothing of a topic through any more."""
        self._tracks.pop(topic, None)
        self._broken.pop(topic, None)

    def note_top(self, topic: str, top: Position | None) -> None:
        """Take note of the newest position that a subscriber was told: from there on nothing may be missing."""
        track = self._tracks.get(topic)
        if track is not None and track.position is None and top is not None:
            track.position = top
            if track.unsure:
                self._break(topic, track)

    def recheck(self, topics: Iterable[str]) -> None:
        """Compare topics with their history: their connection was lost, and with it perhaps messages."""
        self._back.set()
        self._back = trio.Event()
        for topic in topics:
            track = self._tracks.get(topic)
            if track is None or not track.retention.history:
                continue
            track.unsure = True
            if track.position is not None:
                self._break(topic, track)

    # --- what arrives: the hot path ----------------------------------------------------------------------------------

    def take(self, arrivals: Sequence[Arrived]) -> None:
        """Hand on, together, what is next of its topic among messages that arrived together."""
        tracks, ready = self._tracks, []
        for arrived in arrivals:
            notification = arrived.notification
            track = tracks.get(notification.topic)
            if track is None:
                continue
            position = notification.position
            if position is None:
                if not self._repeats.seen(arrived.node, arrived.sequence):
                    ready.append(notification)
                continue
            last = track.position
            if (
                track.held is None
                and last is not None
                and position.offset == last.offset + 1
                and position.epoch == last.epoch
            ) or self._is_next(notification, position, track):
                track.position = position
                ready.append(notification)
        if ready:
            self._receiver.deliver(ready)

    def deliver_here(self, notification: Notification, node: str, sequence: int) -> None:
        """Hand on a message without position that could not be published; its echo, if it comes, is a repeat."""
        if not self._repeats.seen(node, sequence) and notification.topic in self._tracks:
            self._receiver.deliver((notification,))

    def leave_out(self, node: str, sequence: int) -> None:
        """Let nothing come of a message that could not be published; its echo, if it comes, is a repeat."""
        self._repeats.seen(node, sequence)

    def _is_next(self, notification: Notification, position: Position, track: TopicOrder) -> bool:
        """Judge what is not plainly the next message; hold it where something before it is missing."""
        if track.position is None and track.unsure:
            track.held = track.held or []  # until `note_top` tells where it has to begin
        if track.held is not None:
            self._hold(track, notification)
            return False
        if track.position is None:
            return True
        judged = track.position.judge(position)
        if judged is Continuity.DUPLICATE:
            self._events.count("duplicates_dropped")
            return False
        self._break(notification.topic, track)
        self._hold(track, notification)
        return False

    @staticmethod
    def _hold(track: TopicOrder, notification: Notification) -> None:
        assert track.held is not None
        if len(track.held) >= MOST_HELD:
            track.held.clear()
            track.unsure = True
        track.held.append(notification)

    def _break(self, topic: str, track: TopicOrder) -> None:
        track.unsure = True
        track.held = track.held or []
        if not track.repairing:
            self._broken[topic] = None
            self._work.unpark()

    # --- repairing ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Repair what breaks, until cancelled. While the broker is away, what is broken waits for it."""
        for topic, track in self._tracks.items():
            track.repairing = False
            if track.held is not None:  # its repair was cut short when this service failed
                self._broken[topic] = None
        async with trio.open_nursery() as nursery:
            for _ in range(REPAIRS_AT_ONCE):
                nursery.start_soon(self._repair_all)
            task_status.started()

    async def _repair_all(self) -> None:
        while True:
            while not self._broken:
                await self._work.park()
            topic = next(iter(self._broken))
            del self._broken[topic]
            track = self._tracks[topic]
            track.repairing = True
            try:
                await self._repair(topic, track)
            except BrokerUnavailable as failure:
                if self._tracks.get(topic) is track:
                    self._broken[topic] = None
                with trio.move_on_after(failure.retry_after_s):
                    await self._back.wait()
            finally:
                track.repairing = False

    async def _repair(self, topic: str, track: TopicOrder) -> None:
        """Fill a topic's hole page by page, then hand on what was held behind it. Raises BrokerUnavailable."""
        fruitless = 0
        while track.held is not None and track.position is not None:
            before = track.position
            if track.unsure:
                await self._fill(topic, track, before)
                self._events.count("repairs")
            if self._tracks.get(topic) is not track:
                return
            self._release(track)
            fruitless = fruitless + 1 if track.position == before else 0
            if track.held:
                if fruitless >= FRUITLESS_REPAIRS:
                    self._give_up(topic, track, track.held[0])
                    fruitless = 0
                await trio.sleep(FRUITLESS_PAUSE_S if fruitless else 0)

    async def _fill(self, topic: str, track: TopicOrder, since: Position) -> None:
        """Hand on what the history has after `since`, and tell what it has no more.

        A track that is unsure stays so when this fails, and becomes so while it is read.
        """
        track.unsure = False
        try:
            page = await self._read(topic, since, REPAIR_PAGE_MESSAGES, track.retention)
            if not page.continuous and page.top is not None:
                since, page = await self._skip(topic, track, since, page)
            await self._hand_on(topic, track, since, page)
        except BaseException:
            track.unsure = True
            raise

    async def _hand_on(self, topic: str, track: TopicOrder, since: Position, page: Page) -> None:
        """Hand on a page that follows `since`, and all further ones."""
        while self._tracks.get(topic) is track:
            if page.top is None:  # no history is kept any more
                track.position = None
                return
            track.position = since
            if page.messages:
                track.position = since = page.messages[-1].position or since
                self._receiver.deliver(page.messages)
            if not page.more:
                return
            page = await self._read(topic, since, REPAIR_PAGE_MESSAGES, track.retention)
            if not page.continuous:  # it lost its beginning, or its life, since the last page
                track.unsure = True
                return

    async def _skip(self, topic: str, track: TopicOrder, since: Position, page: Page) -> tuple[Position, Page]:
        """Tell what is lost after `since`; return the position after which the history goes on, and its first page."""
        top = page.top
        assert top is not None
        if since.epoch == top.epoch and since.offset > top.offset:
            await self._renew(topic, since)
            raise BrokerUnavailable("the history had lost its newest messages", retry_after_s=0.0)
        reborn = since.epoch != top.epoch
        start = Position(top.epoch, page.base) if reborn else since
        page = await self._read(topic, start, REPAIR_PAGE_MESSAGES, track.retention)
        if not page.continuous:
            page = await self._read(topic, "earliest", REPAIR_PAGE_MESSAGES, track.retention)
            first = page.messages[0].position if page.messages else None
            start = Position(top.epoch, first.offset - 1 if first else (page.top or top).offset)
        if page.top is not None and page.top.epoch != top.epoch:
            raise BrokerUnavailable("the history began anew while it was read", retry_after_s=0.0)
        lost = 0 if reborn else since.offset
        if self._tracks.get(topic) is track and (reborn or start.offset > lost):
            first_lost = Position(top.epoch, min(lost + 1, start.offset))
            self._receiver.lose(Loss(topic, first_lost, start.offset, "epoch" if reborn else "expired"))
        return start, page

    def _release(self, track: TopicOrder) -> None:
        """Hand on what was held, as far as it follows; what shows another hole stays held."""
        held, ready = track.held or [], []
        for count, notification in enumerate(held):
            position, last = notification.position, track.position
            assert position is not None
            judged = Continuity.NEXT if last is None else last.judge(position)
            if judged in {Continuity.GAP, Continuity.NEW_EPOCH}:
                track.unsure = True
                track.held = held[count:]
                break
            if judged is Continuity.NEXT:
                track.position = position
                ready.append(notification)
        else:
            track.held = [] if track.unsure and track.position is not None else None
        if ready:
            self._receiver.deliver(ready)

    def _give_up(self, topic: str, track: TopicOrder, held: Notification) -> None:
        """Go on with a message that is held, and tell what is missing before it; of an epoch that is over, drop it."""
        position, last = held.position, track.position
        assert position is not None
        assert last is not None
        assert track.held is not None
        if position.epoch != last.epoch:
            track.held = [one for one in track.held if one.position and one.position.epoch != position.epoch]
            return
        track.position = Position(position.epoch, position.offset - 1)
        first_lost = Position(position.epoch, last.offset + 1)
        self._receiver.lose(Loss(topic, first_lost, position.offset - 1, "expired"))
        self._release(track)
        track.unsure = True  # a history that has not come to this message has lost some: it is asked once more
        track.held = track.held or []
