"""What one connection is still owed: whole frames in order, a budget in bytes, and what happens when it is spent.

The fan-out fills outboxes and sends from them without waiting. Only when a socket would block does a writer task come
to life for that connection (`on_blocked`), and it ends when the outbox is empty again.
"""

from collections.abc import Callable
from typing import Protocol

import trio

from notifyd.errors import StreamBroken
from notifyd.hub.delivery import Delivery
from notifyd.settings import Overflow
from protocol.framing import Form, to_wire
from protocol.messages import Gap, encode
from protocol.position import Position

JOINED_BYTES = 64 * 1024
"""Frames waiting together are joined into one write of about this size: more saves no system calls worth having."""

GAP_BYTES = 512
"""What a gap notice is counted as; it is written down only when it is sent."""


class Sink(Protocol):
    """The sending half of a byte stream; see notifyd.transport.stream."""

    @property
    def has_unsent(self) -> bool:
        """Whether taken bytes are still held on this side."""

    def send_now(self, data: bytes | memoryview) -> int:
        """Take what can be taken without waiting."""

    async def wait_writable(self) -> None:
        """Wait until `send_now` can make progress."""


class Lost:
    """Offsets of one topic that a slow subscriber did not get, standing in the queue where they would have stood."""

    __slots__ = ("epoch", "first", "last", "topic")

    def __init__(self, topic: str, position: Position) -> None:
        self.topic = topic
        self.epoch = position.epoch
        self.first = self.last = position.offset

    def extend(self, position: Position) -> bool:
        """Take in the offset that follows; False when it belongs to another run."""
        if position.epoch != self.epoch or position.offset != self.last + 1:
            return False
        self.last = position.offset
        return True

    def frame(self, form: Form) -> bytes:
        """Write the gap notice."""
        gap = Gap(topic=self.topic, first=self.first, last=self.last, reason="slow", epoch=self.epoch)
        return to_wire(form, encode(gap, form.encoding), 0)


class Outbox:
    """The queue of one connection.

    `on_blocked` is called when the socket would block and a writer is needed; `on_broken` when the socket failed;
    `on_overflow` with the policy each time the budget was exceeded (DISCONNECT: the connection is to be ended).
    """

    __slots__ = (
        "_blocked",
        "_budget_bytes",
        "_closed",
        "_drained",
        "_draining",
        "_lost",
        "_on_blocked",
        "_on_broken",
        "_on_overflow",
        "_queue",
        "_remainder",
        "_sink",
        "form",
        "queued_bytes",
    )

    def __init__(
        self,
        sink: Sink,
        form: Form,
        budget_bytes: int,
        *,
        on_blocked: Callable[[], None],
        on_broken: Callable[[], None],
        on_overflow: Callable[[Overflow], None],
    ) -> None:
        self.form = form
        self.queued_bytes = 0
        self._sink = sink
        self._budget_bytes = budget_bytes
        self._queue: list[bytes | Delivery | Lost] = []
        self._remainder: memoryview | None = None
        self._blocked = False
        self._closed = False
        self._lost: dict[str, Lost] | None = None
        self._drained: trio.Event | None = None
        self._draining = False
        self._on_blocked = on_blocked
        self._on_broken = on_broken
        self._on_overflow = on_overflow

    @property
    def is_blocked(self) -> bool:
        """Whether the socket would block: a frame may be half sent."""
        return self._blocked

    # --- filling: synchronous, from the fan-out and from the connection ----------------------------------------------

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery, or apply its topic's overflow policy where the budget does not hold it."""
        if self._closed:
            return
        frame = delivery.frames[self.form] or delivery.frame(self.form)
        size_bytes = len(frame)
        if self.queued_bytes + size_bytes > self._budget_bytes and not self._make_room(size_bytes):
            self._overflow(delivery, size_bytes)
            return
        if self._lost is not None:
            self._lost.pop(delivery.topic, None)
        self.queued_bytes += size_bytes
        self._queue.append(delivery)

    def has_room(self, delivery: Delivery) -> bool:
        """Whether a delivery fits the budget now, after sending what can be sent."""
        size_bytes = len(delivery.frame(self.form))
        return self.queued_bytes + size_bytes <= self._budget_bytes or self._make_room(size_bytes)

    def put_frame(self, frame: bytes) -> None:
        """Queue a whole frame that belongs to this connection alone: a reply, a heartbeat, a control frame."""
        if self._closed:
            return
        if self.queued_bytes + len(frame) > self._budget_bytes and not self._make_room(len(frame)):
            self._closed = True
            self._on_overflow(Overflow.DISCONNECT)
            return
        self.queued_bytes += len(frame)
        self._queue.append(frame)

    def flush(self) -> None:
        """Send what is queued with one non-blocking send, or leave it to the writer when the socket would block."""
        while self._queue and not self._blocked:
            self._send(self._take())

    def close(self, final_frame: bytes, *, discard: bool) -> None:
        """Take nothing more after `final_frame` (b"" for none); with `discard`, drop the whole frames still waiting."""
        if discard:
            self._queue.clear()
            self.queued_bytes = len(self._remainder or b"")
        self._closed = True
        if final_frame:
            self._queue.append(final_frame)
            self.queued_bytes += len(final_frame)
        self.flush()

    def first_unsent(self, topic: str) -> Position | None:
        """Tell the oldest position of a topic that has not been handed to the socket; None when all were."""
        for item in self._queue:
            if type(item) is Delivery and item.topic == topic and item.position is not None:
                return item.position
            if type(item) is Lost and item.topic == topic:
                return Position(item.epoch, item.first)
        return None

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
                self._send(self._remainder or b"")
                self.flush()
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

    def _take(self) -> bytes:
        """Take frames for one write off the queue."""
        queue = self._queue
        if len(queue) == 1:
            data = self._frame_of(queue.pop())
        else:
            frames: list[bytes] = []
            joined_bytes = 0
            for item in queue:
                frame = self._frame_of(item)
                frames.append(frame)
                joined_bytes += len(frame)
                if joined_bytes >= JOINED_BYTES:
                    break
            del queue[: len(frames)]
            data = b"".join(frames)
        if self._lost:
            self._lost = None
        return data

    def _frame_of(self, item: bytes | Delivery | Lost) -> bytes:
        if type(item) is bytes:
            return item
        if type(item) is Delivery:
            return item.frame(self.form)
        assert type(item) is Lost
        frame = item.frame(self.form)
        self.queued_bytes += len(frame) - GAP_BYTES
        return frame

    def _send(self, data: bytes | memoryview) -> None:
        sink = self._sink
        try:
            sent_bytes = sink.send_now(data)
        except StreamBroken:
            self._break()
            return
        if sent_bytes == len(data) and not sink.has_unsent:
            self._remainder = None
            if not self._queue:
                self.queued_bytes = 0
                if self._drained is not None:
                    self._drained.set()
                    self._drained = None
            else:
                self.queued_bytes -= sent_bytes
            return
        self.queued_bytes -= sent_bytes
        self._remainder = memoryview(data)[sent_bytes:]
        self._blocked = True
        if not self._draining:
            self._on_blocked()

    def _break(self) -> None:
        self._closed = True
        self._blocked = False
        self._queue.clear()
        self._remainder = None
        self.queued_bytes = 0
        self._on_broken()

    # --- overflow: pure bookkeeping ----------------------------------------------------------------------------------

    def _make_room(self, size_bytes: int) -> bool:
        """Try to send first; tell whether the frame fits now. A frame larger than the whole budget may stand alone."""
        self.flush()
        return not self.queued_bytes or self.queued_bytes + size_bytes <= self._budget_bytes

    def _overflow(self, delivery: Delivery, size_bytes: int) -> None:
        policy = delivery.overflow
        self._closed = policy is Overflow.DISCONNECT
        self._on_overflow(policy)
        if self._closed:
            return
        if policy is not Overflow.GAP and self._drop_older(delivery, size_bytes, every=policy is Overflow.LATEST):
            self.queued_bytes += size_bytes
            self._queue.append(delivery)
        else:
            self._lose(delivery)

    def _lose(self, delivery: Delivery) -> None:
        """Leave the newest message out and say so in its place."""
        position = delivery.position
        if position is None:
            return
        if self._lost is None:
            self._lost = {}
        lost = self._lost.get(delivery.topic)
        if lost is None or not lost.extend(position):
            lost = self._lost[delivery.topic] = Lost(delivery.topic, position)
            self._queue.append(lost)
            self.queued_bytes += GAP_BYTES

    def _drop_older(self, newest: Delivery, size_bytes: int, *, every: bool) -> bool:
        """Drop the topic's queued messages, oldest first (all of them with `every`), until `newest` fits."""
        kept: list[bytes | Delivery | Lost] = []
        lost: Lost | None = None
        freed_bytes = 0
        missing_bytes = self.queued_bytes + size_bytes - self._budget_bytes
        for item in self._queue:
            if type(item) is bytes or item.topic != newest.topic or not (every or freed_bytes < missing_bytes):  # type: ignore[union-attr]
                kept.append(item)
            elif type(item) is Lost:
                lost = item
                kept.append(item)
            else:
                assert type(item) is Delivery
                freed_bytes += len(item.frame(self.form))
                lost, cost_bytes = _record(item, lost, kept)
                freed_bytes -= cost_bytes
        self._queue = kept
        self.queued_bytes -= freed_bytes
        if self._lost is not None:
            self._lost.pop(newest.topic, None)
        return freed_bytes >= missing_bytes


def _record(dropped: Delivery, lost: Lost | None, kept: list[bytes | Delivery | Lost]) -> tuple[Lost | None, int]:
    """Note a dropped message in the run before it, or begin a run in its place; return the run and its added cost."""
    position = dropped.position
    if position is None or (lost is not None and lost.extend(position)):
        return lost, 0
    lost = Lost(dropped.topic, position)
    kept.append(lost)
    return lost, GAP_BYTES
