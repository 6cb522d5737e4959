"""What time it is, for measuring and for telling others."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import trio


@dataclass(frozen=True, slots=True)
class Clock:
    """The two clocks of a node; tests hand in their own.

    `monotonic_s` measures: it is Trio's clock, since deadlines are set by it. `unix_s` tells the time of day to others.
    """

    monotonic_s: Callable[[], float] = field(default=trio.current_time)
    unix_s: Callable[[], float] = field(default=time.time)

    def unix_ms(self) -> int:
        """Return the time of day in milliseconds since the Unix epoch."""
        return int(self.unix_s() * 1000)
