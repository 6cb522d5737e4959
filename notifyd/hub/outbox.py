"""What one connection is still owed: whole frames in order, a budget in bytes, and what happens when it is spent.

The fan-out fills outboxes and sends from them without waiting. Only when a socket would block does a writer task come
to life for that connection (`Owner.outbox_blocked`), and it ends when the outbox is empty again.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

import trio

from notifyd.errors import StreamBroken
from notifyd.hub.backlog import GAP_BYTES, Backlog, Backlogs, Lost, Waiting, first_positions
from notifyd.hub.delivery import Delivery
from notifyd.settings import Overflow
from protocol.framing import Form
from protocol.position import Position

JOINED_BYTES = 64 * 1024
"""Frames waiting together are joined into one write of about this size: more saves no system calls worth having."""

REPLAY_SHARE = 2
"""A replay may fill one part in so many of the budget: the rest is for what is live meanwhile."""


JoinedFrames: TypeAlias = dict[Form, tuple[list[Delivery], bytes]]
"""What was joined last for each form: connections that are owed the same share its bytes."""


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

    `queued_bytes` stays within the budget (`budget_bytes`, which may be changed at any time), but for one frame that
    alone is larger, and for GAP_BYTES a topic whose messages were let go. From the first message let go until nothing
    waits any more the queue holds one `Backlog` a topic, served in turns: a topic's own order never changes.
    """

    __slots__ = (
        "_backlogs",
        "_blocked",
        "_closed",
        "_drained",
        "_draining",
        "_fresh",
        "_missed",
        "_owner",
        "_queue",
        "_remainder",
        "_sending",
        "_sink",
        "budget_bytes",
        "form",
        "queued_bytes",
    )

    def __init__(self, sink: Sink, form: Form, budget_bytes: int, owner: Owner) -> None:
        self.form = form
        self.queued_bytes = 0
        self._sink = sink
        self.budget_bytes = budget_bytes
        self._queue: list[Waiting] = []
        self._fresh: list[Delivery] = []
        self._backlogs: Backlogs | None = None
        self._sending: Sequence[Waiting] = ()
        self._remainder: memoryview | None = None
        self._blocked = False
        self._closed = False
        self._missed: dict[str, Position] | None = None
        self._drained: trio.Event | None = None
        self._draining = False
        self._owner = owner

    @property
    def is_blocked(self) -> bool:
        """Whether the socket would block: a frame may be half sent."""
        return self._blocked

    # --- filling: synchronous, from the fan-out and from the connection ----------------------------------------------

    def append(self, delivery: Delivery) -> None:
        """Take a delivery that `flush` follows in this step of the scheduler or the next, as `put` does but cheaply.

        Most of them leave with that flush. Only what does not is counted against the budget.
        """
        if self._blocked:
            self.put(delivery)
        else:
            self._fresh.append(delivery)

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery, or apply its topic's overflow policy where the budget does not hold it."""
        if self._fresh:
            self._settle()
        if self._closed:
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
        if self._fresh:
            self._settle()
        if self._closed:
            return
        if self.queued_bytes + len(frame) > self.budget_bytes and not self._make_room(len(frame)):
            self._disconnect()
            return
        self.queued_bytes += len(frame)
        self._queue.append(frame)

    def put_gap(self, lost: Lost) -> None:
        """Queue the notice that offsets of a topic will not come; it always finds room."""
        self._settle()
        if self._closed:
            self._miss(lost.topic, Position(lost.epoch, lost.first))
            return
        self.queued_bytes += GAP_BYTES
        if self._backlogs is None:
            self._queue.append(lost)
        else:
            self._backlog(lost.topic).append(lost)

    def has_room(self, delivery: Delivery) -> bool:
        """Whether a delivery of the past fits now, after sending what can be sent, and leaves room for what is live."""
        self._settle()
        size_bytes, share_bytes = len(delivery.frame(self.form)), self.budget_bytes // REPLAY_SHARE
        if self.queued_bytes + size_bytes > share_bytes:
            self.flush()
        return not self.queued_bytes or self.queued_bytes + size_bytes <= share_bytes

    def flush(self, joined: JoinedFrames | None = None) -> None:
        """Send what is queued with one non-blocking send, or leave it to the writer when the socket would block.

        Connections flushed one after the other with the same `joined` share what they join.
        """
        if self._fresh and not self._send_fresh(joined):
            self._settle()
        while self._queue and not self._blocked:
            taken, data = self._take()
            self._send(data, taken)

    def close(self, final_frame: bytes, *, discard: bool) -> None:
        """Take nothing more after `final_frame` (b"" for none); with `discard`, drop the whole frames still waiting."""
        self._settle()
        if discard:
            self._discard()
            self.queued_bytes = len(self._remainder or b"")
        self._closed = True
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
            while self._blocked:
                with trio.fail_after(deadline_s):
                    await self._sink.wait_writable()
                self._blocked = False
                self._send(self._remainder or b"", self._sending)
                self.flush()
        except StreamBroken:
            self._break()
            raise
        finally:
            self._draining = False

    async def wait_drained(self) -> None:
        """Wait until everything queued so far has been handed to the socket."""
        if self._blocked:
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _settle(self) -> None:
        """Queue and count what `append` took."""
        fresh, self._fresh = self._fresh, []
        for delivery in fresh:
            self.put(delivery)

    def _send_fresh(self, joined: JoinedFrames | None) -> bool:
        """Send what `append` took in one write; False where something stands before it or it is too much for one."""
        fresh, form = self._fresh, self.form
        if self._queue or self._blocked or self._closed or self._backlogs is not None:
            return False
        if len(fresh) == 1:
            data = fresh[0].frames[form] or fresh[0].frame(form)
        elif joined is not None and (shared := joined.get(form)) is not None and shared[0] == fresh:
            data = shared[1]
        else:
            data = b"".join([delivery.frames[form] or delivery.frame(form) for delivery in fresh])
            if len(data) > JOINED_BYTES or len(data) > self.budget_bytes:
                return False
            if joined is not None:
                joined[form] = fresh, data
        self._fresh = []
        self.queued_bytes += len(data)
        self._send(data, fresh)
        return True

    def _take(self) -> tuple[Sequence[Waiting], bytes]:
        """Take what makes one write off the queue; return it as it was and as bytes."""
        if self._backlogs is not None:
            in_turns = self._backlogs.take(JOINED_BYTES)
            return in_turns, b"".join(map(self._frame_of, in_turns))
        queue = self._queue
        if len(queue) == 1:
            item = queue.pop()
            return (item,), self._frame_of(item)
        frames: list[bytes] = []
        joined_bytes = 0
        for item in queue:
            frame = self._frame_of(item)
            frames.append(frame)
            joined_bytes += len(frame)
            if joined_bytes >= JOINED_BYTES:
                break
        taken = queue[: len(frames)]
        del queue[: len(frames)]
        return taken, b"".join(frames)

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
        sink = self._sink
        try:
            sent_bytes = sink.send_now(data)
        except StreamBroken:
            self._sending = taken
            self._break()
            return
        if sent_bytes == len(data) and not sink.has_unsent:
            self.queued_bytes -= sent_bytes
            self._remainder = None
            self._sending = ()
            if not self._queue:
                self._come_to_rest()
            return
        self.queued_bytes -= sent_bytes
        self._remainder = memoryview(data)[sent_bytes:]
        self._sending = taken
        self._blocked = True
        if not self._draining:
            self._owner.outbox_blocked()

    def _come_to_rest(self) -> None:
        """Nothing waits any more: forget that the connection was slow, and wake who waits for this."""
        self._backlogs = None
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _break(self) -> None:
        self._closed = True
        self._blocked = False
        self._queue[:0] = self._sending
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
        if self._closed:
            return False
        return not self.queued_bytes or self.queued_bytes + size_bytes <= self.budget_bytes

    def _overflow(self, delivery: Delivery, size_bytes: int) -> None:
        policy = delivery.overflow
        if self._closed:
            self._miss(delivery.topic, delivery.position)
        elif policy is Overflow.DISCONNECT:
            self._miss(delivery.topic, delivery.position)
            self._disconnect()
        else:
            self._owner.outbox_overflowed(policy)
            self._let_go(delivery, size_bytes)

    def _disconnect(self) -> None:
        if not self._closed:
            self._closed = True
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
