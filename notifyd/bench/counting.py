"""Counting what arrives without parsing it: the hot path of a load process.

All links read into one buffer. Before the bytes that a link just received stand the last ones that it received before
(its carry), so that what was cut in two is found; a message counts once, when its mark and its time stamp are there.

Of every so many messages one is timed. The distance between two is drawn at random and independent of how the bytes
were cut, so that each message is as likely as any other; it grows with the rate, and a latency counts for as many.
"""

import random
import time
from typing import TypeAlias

from notifyd.bench.histogram import LatencyHistogram
from notifyd.bench.payload import MARK, STAMP_BYTES
from protocol.codec import HEADER_BYTES, MAGIC, FrameType

SPACE_BYTES = 256 * 1024
CARRY_BYTES = 320
"""Holds a cut message's mark, and the last words of a server: a Close frame, or the `error` push of a device link."""

NO_CARRY = bytes(CARRY_BYTES)

MOST_TIMED_PER_S = 4000
"""Timing a message costs some 2 us: one percent of a core."""

_FIRST_MARK = CARRY_BYTES - STAMP_BYTES - len(MARK) + 1
"""A mark further left was complete, with its stamp, the time before."""

_PING = MAGIC + bytes((FrameType.PING,))
"""No message holds it: it ends in a byte that no text has."""

_FIRST_PING = CARRY_BYTES - HEADER_BYTES + 1


Arrival: TypeAlias = tuple[int, int | None, bytes]
"""How many messages arrived, the time stamp of the last PING among them, and the link's next carry."""


class Arrivals:
    """The buffer, how many messages were found in it, and the latencies of some.

    A link reads into `space` and hands over what it had before and how much is new.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.count = 0
        self.is_timing = True
        """Whether what arrives is as old as its latency: messages of the past are not."""
        self.histogram = LatencyHistogram()
        self._buffer = bytearray(CARRY_BYTES + SPACE_BYTES)
        self._view = memoryview(self._buffer)
        self.space = self._view[CARRY_BYTES:]
        self._random = random.Random(seed)
        self._stride = 1
        self._until_timed = 0
        self._timed = 0

    def take(self, carry: bytes, size: int) -> Arrival:
        """Count the messages that `size` new bytes in `space` complete, behind the link's carry."""
        buffer = self._buffer
        buffer[:CARRY_BYTES] = carry
        end = CARRY_BYTES + size
        found = buffer.count(MARK, _FIRST_MARK, end - STAMP_BYTES)
        self.count += found
        self._until_timed -= found
        if self._until_timed < 0 and self.is_timing:
            self._time(found, end - STAMP_BYTES)
        place = buffer.rfind(_PING, _FIRST_PING, end - HEADER_BYTES + len(_PING))
        ping = None if place < 0 else int.from_bytes(buffer[place + len(_PING) : place + len(_PING) + 8], "big")
        return found, ping, bytes(self._view[size : size + CARRY_BYTES])

    def adapt(self, interval_s: float) -> None:
        """Time more of the messages or fewer, by how many were timed since the last call, `interval_s` ago."""
        most = MOST_TIMED_PER_S * interval_s
        if self._timed > most:
            self._stride *= 2
        elif self._stride > 1 and self._timed < most / 4:
            self._stride //= 2
        self._timed = 0

    def _time(self, found: int, end: int) -> None:
        """Time those of the `found` messages whose turn it is."""
        now_ns = time.monotonic_ns()
        number = self._until_timed + found
        buffer = self._buffer
        first = buffer.find(MARK, _FIRST_MARK, end)
        spacing = (buffer.rfind(MARK, first, end) - first) / (found - 1) if found > 1 else 0.0
        while number < found:
            # All of a load's messages are about as long, and any near the one drawn is as good as that.
            guess = first + int((number - 0.5) * spacing)
            stamp = buffer.find(MARK, max(first, guess), end) + len(MARK)
            self.histogram.add(now_ns - int(buffer[stamp : stamp + STAMP_BYTES]), self._stride)
            self._timed += 1
            number += 1 if self._stride == 1 else 1 + self._random.randrange(2 * self._stride - 1)
        self._until_timed = number - found
