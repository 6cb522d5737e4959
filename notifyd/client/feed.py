"""One topic's messages, from the connection's reader to the user's `async for`.

A feed outlives connections and holds a bounded number of events. A consumer slower than that does not stop the
connection (heartbeats and replies go on): the feed lets the newest messages go, and when the consumer has caught up it
reads them back from the topic's history; only what is no longer kept there becomes a Gap.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import trio

from notifyd.client.errors import SubscriptionEnded
from notifyd.client.track import Track, position_of
from protocol.errors import RequestError
from protocol.messages import Gap, HistoryReply, Joined, Left, Message, Restored, Since, Subscribed, Unsubscribed
from protocol.position import Position

FeedEvent = Message | Gap | Joined | Left
Push = FeedEvent | Unsubscribed

ReadHistory = Callable[[str, Position, int], Awaitable[HistoryReply]]
Acknowledge = Callable[[str, int], None]

QUEUE_MESSAGES = 1000
"""A feed's default bound, and the most that one page of history holds (spec/wire.md)."""

EVENTS_A_TURN = 16
"""Reader and consumer each handle so many before the other has its turn, so that a quick consumer keeps up."""


class Feed:
    """An async iterator over a topic's `Message` and `Gap` events (and `Joined`, `Left` with `joins`), in order.

    A `Gap` says that the offsets `first` to `last` of `epoch` will not come; both are 0 where what is missing has no
    offsets that could be named. `reason` is the server's word, or of the client: "expired" (no longer kept when the
    connection was back), "epoch" (the topic's history began anew), "skipped" (nobody announced it), "slow" (the
    consumer was too slow, and the history has them no more), "no_history" (the topic keeps none, and the connection
    was away).

    Iteration raises RequestError or SubscriptionEnded after the last event when the server ended the subscription, and
    the client's error when the client goes on no more. Several tasks may iterate: each event goes to one of them.
    Cancelled, iteration loses nothing.
    """

    def __init__(self, topic: str, since: Since, read_history: ReadHistory, acknowledge: Acknowledge) -> None:
        self.topic = topic
        self.queue_messages = QUEUE_MESSAGES
        self.joins = False
        self.is_claimed = False
        self.acknowledged: Position | None = None
        self._track = Track(topic, since)
        self._begun = trio.Event()
        self._active = False
        self._behind = False
        self._newest: Position | None = None
        self._held: deque[Message | Gap] = deque()
        self._silences = 0
        self._events: deque[FeedEvent] = deque()
        self._failure: Exception | None = None
        self._arrived = trio.Event()
        self._taken = 0
        self._turn = trio.Lock()
        self._read_history = read_history
        self._send_acknowledgement = acknowledge

    # --- for the consumer --------------------------------------------------------------------------------------------

    def __aiter__(self) -> "Feed":
        return self

    async def __anext__(self) -> FeedEvent:
        self._taken += 1
        if self._events and self._taken % EVENTS_A_TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._events:
            await self._wait()
        return self._events.popleft()

    async def _wait(self) -> None:
        """Wait until there may be an event; raises what ended the feed."""
        if self._behind:
            async with self._turn:
                if self._behind and not self._events:
                    await self._catch_up()
        elif self._failure is not None:
            raise self._failure
        else:
            if self._arrived.is_set():
                self._arrived = trio.Event()
            await self._arrived.wait()

    def acknowledge(self, event: Message | Gap) -> None:
        """Tell the server that everything up to this event has been handled.

        It leaves with the next bytes, or after the next reconnect; the server resumes a session from there when the
        client itself remembers no position. Does nothing for a message without an offset, or an earlier one.
        """
        position = position_of(event)
        earlier = self.acknowledged
        if position is None or (earlier and earlier.epoch == position.epoch and earlier.offset >= position.offset):
            return
        self.acknowledged = position
        self._send_acknowledgement(self.topic, position.offset)

    @property
    def position(self) -> Position | None:
        """The position of the newest event taken in: a later `since` for a client that starts anew."""
        return self._track.position

    # --- for the session ---------------------------------------------------------------------------------------------

    @property
    def since(self) -> Since:
        """What a subscription of this feed has to ask for."""
        return self._track.since

    async def ready(self) -> None:
        """Wait until the server has begun the subscription once; raises what ended it before that."""
        await self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def begin(self, asked: Since, reply: Subscribed | Restored) -> None:
        """Take what the server pushes from here on."""
        gaps = self._track.begin(asked, reply)
        if gaps:
            # What was let go lies in the gap now, and no history goes beyond it.
            self._behind = False
            self._add(gaps)
        self._active = True
        self._begun.set()

    def pause(self) -> None:
        """Take nothing more until `begin`: the connection is gone, and what was held will come again."""
        self._active = False
        self._held.clear()

    def end(self, failure: Exception) -> None:
        """Let iteration raise after what is there."""
        self._silences = 0
        self._release()
        if self._behind and self._newest is not None:
            self._add(self._track.jump(self._newest, "slow"))
        self._behind = self._active = False
        self._failure = self._failure or failure
        self._begun.set()
        self._arrived.set()

    def push(self, push: Push) -> None:
        """Take what the server pushed."""
        if not self._active:
            return
        if isinstance(push, Unsubscribed):
            self.end(SubscriptionEnded(self.topic, push.reason or "unsubscribed"))
        elif isinstance(push, (Joined, Left)):
            if self.joins and not self._is_behind():
                self._add([push])
        elif self._is_behind():
            self._let_go(push)
        else:
            self._held.append(push)
            self._release()

    # --- publishes that are not echoed -------------------------------------------------------------------------------

    def expect_silence(self) -> None:
        """Hold back what comes after a jump: it may be the offset of a publish that is under way, not to be echoed."""
        self._silences += 1

    def end_silence(self, position: Position | None) -> None:
        """Take the position of such a publish, None where it is not known; what was held back is judged by it."""
        self._silences = max(0, self._silences - 1)
        if position is not None:
            self._track.pass_over(position)
        self._release()

    def _release(self) -> None:
        while self._held and not (self._silences and self._track.jumps(self._held[0])):
            event = self._held.popleft()
            self._add(self._track.take(event) if isinstance(event, Message) else self._track.take_gap(event))

    # --- falling behind and catching up ------------------------------------------------------------------------------

    def _is_behind(self) -> bool:
        if not self._behind and len(self._events) + len(self._held) >= self.queue_messages:
            self._behind = True
            self._newest = position_of(self._held[-1]) if self._held else None
            self._held.clear()
            self._arrived.set()
        return self._behind

    def _let_go(self, event: Message | Gap) -> None:
        position = position_of(event)
        if position is not None and not self._track.has_reached(position):
            self._newest = position

    async def _catch_up(self) -> None:
        """Read from the history what was let go; live again when nothing is missing up to the newest."""
        since = self._track.position
        if since is None or self._newest is None:
            self._behind = False
            self._add(self._track.lose_unnamed())
            return
        try:
            page = await self._read_history(self.topic, since, min(self.queue_messages, QUEUE_MESSAGES))
        except RequestError:
            page = None
        if not self._behind or self._track.position != since:
            return  # meanwhile a new connection told where the feed stands
        arrivals = self._track.take_page(page) if page else []
        target = self._target(since)
        if not arrivals and not self._track.has_reached(target):
            arrivals = [*self._track.jump(target, "slow")]
        self._behind = not self._track.has_reached(target)
        self._add(arrivals)

    def _target(self, since: Position) -> Position:
        """Tell how far to catch up: to the newest that was let go, unless its epoch turned out to be over."""
        newest, reached = self._newest, self._track.position
        assert newest is not None
        assert reached is not None
        return reached if newest.epoch == since.epoch != reached.epoch else newest

    def _add(self, events: Iterable[FeedEvent]) -> None:
        self._events.extend(events)
        self._arrived.set()
