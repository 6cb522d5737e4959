"""The socket under an outbox, with nothing behind it: takes as many bytes as a test allows, and keeps them.

    sink = ScriptedSink(room_bytes=10)
    outbox = make_outbox(sink, Form.DEVICE_JSON, budget_bytes=1000)
    outbox.put(delivery)
    outbox.flush()                 # 10 bytes are in `sink.taken`; `outbox.calls.blocked` is 1
    sink.allow(5)                  # wakes a drain that waits

`holds` plays TLS: after so many more sends taken bytes are still held on this side.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import trio

from notifyd.errors import StreamBroken
from notifyd.hub.delivery import Delivery
from notifyd.hub.outbox import Outbox
from notifyd.model import Notification
from notifyd.settings import Overflow, TopicPolicy
from protocol.framing import Form
from protocol.position import Position
from protocol.topics import Pattern

EPOCH = "e1"


class ScriptedSink:
    """Implements `notifyd.hub.outbox.Sink`. `sends` has the size of every non-empty send that took something."""

    def __init__(self, room_bytes: float = inf) -> None:
        self.room_bytes = room_bytes
        self.taken = bytearray()
        self.sends: list[int] = []
        self.broken = False
        self.holds = 0
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def has_unsent(self) -> bool:
        return self.holds > 0

    def send_now(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise StreamBroken("broken by the test")
        self.holds = max(0, self.holds - 1)
        taken = bytes(data[: int(min(self.room_bytes, len(data)))])
        self.room_bytes -= len(taken)
        self.taken += taken
        if taken:
            self.sends.append(len(taken))
        return len(taken)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room_bytes and not self.broken:
            await self._changed.park()
        if self.broken:
            raise StreamBroken("broken by the test")

    def allow(self, room_bytes: float) -> None:
        """Take so many bytes more."""
        self.room_bytes += room_bytes
        self._changed.unpark_all()

    def break_off(self) -> None:
        """Fail from now on."""
        self.broken = True
        self._changed.unpark_all()


@dataclass
class Calls:
    """An outbox's owner that remembers what it was told; `start_writer` is called when it blocks."""

    start_writer: Callable[[], None] | None = None
    blocked: int = 0
    broken: int = 0
    overflows: Counter[Overflow] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)

    def outbox_blocked(self) -> None:
        self.blocked += 1
        if self.start_writer is not None:
            self.start_writer()

    def outbox_broken(self) -> None:
        self.broken += 1

    def outbox_overflowed(self, policy: Overflow) -> None:
        self.overflows[policy] += 1

    def gap_told(self, reason: str) -> None:
        self.gaps[reason] += 1


class ObservedOutbox(Outbox):
    """An outbox that remembers what it told."""

    __slots__ = ("calls",)

    calls: Calls


def make_outbox(
    sink: ScriptedSink,
    form: Form = Form.DEVICE_JSON,
    budget_bytes: int = 1000,
    *,
    start_writer: Callable[[], None] | None = None,
) -> ObservedOutbox:
    """Return an outbox over the sink; `start_writer` is called when it blocks."""
    calls = Calls(start_writer)
    outbox = ObservedOutbox(sink, form, budget_bytes, calls)
    outbox.calls = calls
    return outbox


def make_delivery(
    topic: str = "a:b",
    offset: int | None = 1,
    *,
    size: int = 10,
    overflow: Overflow = Overflow.DISCONNECT,
    epoch: str = EPOCH,
) -> Delivery:
    """Return a delivery whose data is `size` characters; without an offset it has no place in a history."""
    position = None if offset is None else Position(epoch, offset)
    return Delivery.of(
        Notification(topic, "x" * size, 1_790_000_000_000, position),
        TopicPolicy(match=Pattern("**"), overflow=overflow),
    )
