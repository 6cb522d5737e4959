"""What one connection is still owed: whole frames in order, a budget in bytes, and what happens when it is spent.

The fan-out fills outboxes and sends from them without waiting. Only when a socket would block does a writer task come
to life for that connection (`Owner.outbox_blocked`), and it ends when the outbox is empty again.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

import trio

from notifyd.errors import StreamBroken
from notifyd.hub.backlog import GAP_BYTES, Backlog, Backlogs, Lost, Waiting, first_positions, take
from notifyd.hub.delivery import Delivery
from notifyd.settings import Overflow
from protocol.framing import Form
from protocol.position import Position

JOINED_BYTES = 64 * 1024
"""Frames waiting together are joined into one write of about this size: more saves no system calls worth having."""

REPLAY_SHARE = 2
"""A replay may fill one part in so many of the budget: the rest is for what is live meanwhile."""


Fresh: TypeAlias = "tuple[Fresh, Delivery] | None"
"""Deliveries, the newest first: one chain for all outboxes that were handed the same."""


def in_order(fresh: Fresh) -> list[Delivery]:
    """List what is fresh, the oldest first."""
    deliveries: list[Delivery] = []
    while fresh is not None:
        fresh, delivery = fresh
        deliveries.append(delivery)
    deliveries.reverse()
    return deliveries


class Sink(Protocol):
    """The sending half of a byte stream; see notifyd.transport.stream."""

    @property
    def has_unsent(self) -> bool:
        """Whether taken bytes are still held on this side."""

    def send_now(self, data: bytes | memoryview) -> int:
        """Take what can be taken without waiting."""

    async def wait_writable(self) -> None:
        """Wait until `send_now` can make progress."""


class Owner(Protocol):
    """Whom an outbox tells what happens to it: one reference instead of four methods bound for each of thousands."""

    def outbox_blocked(self) -> None:
        """Let a task call `drain`: the socket would block."""

    def outbox_broken(self) -> None:
        """End the connection: the socket failed."""

    def outbox_overflowed(self, policy: Overflow) -> None:
        """Take note that the budget was exceeded. After DISCONNECT nothing is taken: end the connection."""

    def gap_told(self, reason: str) -> None:
        """Take note that the client is told of a gap."""


class Outbox:
    """The queue of one connection, which is its `owner`.

    `fresh` is what the fan-out has handed it since it was flushed: `hub.fanout` fills it, and usually empties it into
    the socket. Only what does not leave then is queued, and counted. Until it is, `fresh` stands behind the queue.

    `queued_bytes` stays within the budget (`budget_bytes`, which may be changed at any time), but for one frame that
    alone is larger, and for GAP_BYTES a topic whose messages were let go. From the first message let go until nothing
    waits any more the queue holds one `Backlog` a topic, served in turns: a topic's own order never changes.
    """

    __slots__ = (
        "_backlogs",
        "_drained",
        "_draining",
        "_missed",
        "_owner",
        "_queue",
        "_remainder",
        "_sending",
        "budget_bytes",
        "form",
        "fresh",
        "is_blocked",
        "is_closed",
        "queued_bytes",
        "sink",
    )

    def __init__(self, sink: Sink, form: Form, budget_bytes: int, owner: Owner) -> None:
        self.form = form
        self.queued_bytes = 0
        self.sink = sink
        self.budget_bytes = budget_bytes
        self._queue: list[Waiting] = []
        self.fresh: Fresh = None
        self._backlogs: Backlogs | None = None
        self._sending: Sequence[Waiting] = ()
        self._remainder: memoryview | None = None
        self.is_blocked = False
        self.is_closed = False
        self._missed: dict[str, Position] | None = None
        self._drained: trio.Event | None = None
        self._draining = False
        self._owner = owner

    # --- filling: synchronous, from the fan-out and from the connection ----------------------------------------------

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery, or apply its topic's overflow policy where the budget does not hold it."""
        if self.fresh is not None:
            self._settle()
        if self.is_closed:
            self._miss(delivery.topic, delivery.position)
            return
        frame = delivery.frames[self.form] or delivery.frame(self.form)
        size_bytes = len(frame)
        if self.queued_bytes + size_bytes > self.budget_bytes and not self._make_room(size_bytes):
            self._overflow(delivery, size_bytes)
            return
        self.queued_bytes += size_bytes
        if self._backlogs is None:
            self._queue.append(delivery)
        else:
            self._backlog(delivery.topic).append(delivery)

    def put_frame(self, frame: bytes) -> None:
        """Queue a whole frame that belongs to this connection alone: a reply, a heartbeat, a control frame."""
        if self.fresh is not None:
            self._settle()
        if self.is_closed:
            return
        if self.queued_bytes + len(frame) > self.budget_bytes and not self._make_room(len(frame)):
            self._disconnect()
            return
        self.queued_bytes += len(frame)
        self._queue.append(frame)

    def put_gap(self, lost: Lost) -> None:
        """Queue the notice that offsets of a topic will not come; it always finds room."""
        self._settle()
        if self.is_closed:
            self._miss(lost.topic, Position(lost.epoch, lost.first))
            return
        self.queued_bytes += GAP_BYTES
        if self._backlogs is None:
            self._queue.append(lost)
        else:
            self._backlog(lost.topic).append(lost)

    def has_room(self, *deliveries: Delivery) -> bool:
        """Whether deliveries of the past fit now, after sending what can be sent, and leave room for what is live."""
        self._settle()
        size_bytes = sum(len(delivery.frame(self.form)) for delivery in deliveries)
        share_bytes = self.budget_bytes // REPLAY_SHARE
        if self.queued_bytes + size_bytes > share_bytes:
            self.flush()
        # One may stand alone, however large.
        return (len(deliveries) == 1 and not self.queued_bytes) or self.queued_bytes + size_bytes <= share_bytes

    def flush(self) -> None:
        """Send what is queued and what is fresh, or leave it to the writer when the socket would block."""
        if self.fresh is not None:
            self._settle()
        while self._queue and not self.is_blocked:
            self._send(*self._take())

    def close(self, final_frame: bytes, *, discard: bool) -> None:
        """Take nothing more after `final_frame` (b"" for none); with `discard`, drop the whole frames still waiting."""
        self._settle()
        if discard:
            self._discard()
            self.queued_bytes = len(self._remainder or b"")
        self.is_closed = True
        if final_frame:
            self._queue.append(final_frame)
            self.queued_bytes += len(final_frame)
        self.flush()

    def first_unsent(self) -> dict[str, Position]:
        """Tell, of each topic with any, the oldest position that was not handed to the socket whole."""
        self._settle()
        return (self._missed or {}) | first_positions(chain(self._sending, self._waiting()))

    # --- sending -----------------------------------------------------------------------------------------------------

    async def drain(self, deadline_s: float) -> None:
        """Send until nothing is left. Raises trio.TooSlowError when nothing moves for `deadline_s`, StreamBroken.

        Cancelled, it leaves the outbox as it stands: a later `drain` goes on in the middle of the same frame.
        """
        self._draining = True
        try:
            while self.is_blocked:
                with trio.fail_after(deadline_s):
                    await self.sink.wait_writable()
                self._go_on()
        except StreamBroken:
            self.break_off(self._sending)
            raise
        finally:
            self._draining = False

    async def wait_drained(self) -> None:
        """Wait until everything queued so far has been handed to the socket."""
        if self.is_blocked:
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _settle(self) -> None:
        """Queue and count what is fresh."""
        fresh, self.fresh = self.fresh, None
        for delivery in in_order(fresh):
            self.put(delivery)

    def _take(self) -> tuple[bytes, Sequence[Waiting]]:
        """Take what makes one write off the queue; return it as bytes, counted no more, and as it was."""
        if self._backlogs is not None:
            taken = self._backlogs.take(JOINED_BYTES)
        else:
            taken = take(self._queue, JOINED_BYTES, self.form)
        data = b"".join([self._frame_of(item) for item in taken])
        self.queued_bytes -= len(data)
        return data, taken

    def _frame_of(self, item: Waiting) -> bytes:
        if type(item) is bytes:
            return item
        if type(item) is Delivery:
            return item.frame(self.form)
        assert type(item) is Lost
        frame = item.frame(self.form)
        self.queued_bytes += len(frame) - GAP_BYTES
        self._owner.gap_told(item.reason)
        return frame

    def _send(self, data: bytes | memoryview, taken: Sequence[Waiting]) -> None:
        """Send what is counted no more."""
        try:
            sent_bytes = self.sink.send_now(data)
        except StreamBroken:
            self.break_off(taken)
        else:
            if sent_bytes < len(data) or self.sink.has_unsent:
                self.block(memoryview(data)[sent_bytes:], taken)

    def block(self, rest: memoryview, taken: Sequence[Waiting]) -> None:
        """Keep the rest of these: the socket would block, and a writer is needed."""
        self.queued_bytes += len(rest)
        self._remainder = rest
        self._sending = taken
        self.is_blocked = True
        if not self._draining:
            self._owner.outbox_blocked()

    def _go_on(self) -> None:
        """Send the rest of what was sent in part, and all that waits behind it."""
        rest, taken = self._remainder or b"", self._sending
        self.queued_bytes -= len(rest)
        self._remainder = None
        self._sending = ()
        self.is_blocked = False
        self._send(rest, taken)
        self.flush()
        if not self.is_blocked:
            self._come_to_rest()

    def _come_to_rest(self) -> None:
        """Nothing waits any more: forget that the connection was slow, and wake who waits for this."""
        self._backlogs = None
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def break_off(self, taken: Sequence[Waiting]) -> None:
        """Give up: the socket failed before it had taken all of these."""
        self.is_closed = True
        self.is_blocked = False
        self._queue[:0] = taken
        self._sending = ()
        self._discard()
        self._remainder = None
        self.queued_bytes = 0
        self._come_to_rest()
        self._owner.outbox_broken()

    # --- what will not be sent any more -------------------------------------------------------------------------------

    def _miss(self, topic: str, position: Position | None) -> None:
        """Remember that from here on the subscriber got nothing of a topic."""
        if position is not None:
            self._missed = self._missed or {}
            self._missed.setdefault(topic, position)

    def _discard(self) -> None:
        """Drop what waits, remembering where each topic would have gone on."""
        self._missed = (self._missed or {}) | first_positions(self._waiting())
        self._queue.clear()
        self._backlogs = None

    def _waiting(self) -> Iterator[Waiting]:
        for item in self._queue:
            if type(item) is Backlog:
                yield from item.items
            else:
                yield item

    # --- overflow: pure bookkeeping ----------------------------------------------------------------------------------

    def _make_room(self, size_bytes: int) -> bool:
        """Try to send first; tell whether the frame fits now. A frame larger than the whole budget may stand alone."""
        self.flush()
        if self.is_closed:
            return False
        return not self.queued_bytes or self.queued_bytes + size_bytes <= self.budget_bytes

    def _overflow(self, delivery: Delivery, size_bytes: int) -> None:
        policy = delivery.overflow
        if self.is_closed:
            self._miss(delivery.topic, delivery.position)
        elif policy is Overflow.DISCONNECT:
            self._miss(delivery.topic, delivery.position)
            self._disconnect()
        else:
            self._owner.outbox_overflowed(policy)
            self._let_go(delivery, size_bytes)

    def _disconnect(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._owner.outbox_overflowed(Overflow.DISCONNECT)

    def _let_go(self, newest: Delivery, size_bytes: int) -> None:
        """Drop the topic's older messages for the newest, or the newest where that is the policy or the only way."""
        backlog = self._backlog(newest.topic)
        policy, rest_bytes = newest.overflow, self.budget_bytes - size_bytes
        least_bytes = self.queued_bytes - backlog.message_bytes + backlog.gap_bytes
        if policy is Overflow.GAP or least_bytes > rest_bytes:
            self.queued_bytes += backlog.lose(newest)
            if not backlog.items and self._backlogs is not None:
                self._backlogs.forget(backlog)
            return
        while backlog.message_bytes and (policy is Overflow.LATEST or self.queued_bytes > rest_bytes):
            self.queued_bytes -= backlog.drop_oldest()
        self.queued_bytes += size_bytes
        backlog.append(newest)

    def _backlog(self, topic: str) -> Backlog:
        """Return the topic's backlog, in the queue; the first that is asked for gathers what waits already."""
        if self._backlogs is None:
            self._backlogs = Backlogs(self._queue, self.form)
        return self._backlogs.of(topic)
