"""How long to wait before trying again: exponential, jittered, capped.

Source: spec/wire.md, "Reconnecting".
"""

import random as _random
from collections.abc import Callable

BASE_S = 0.1
CAP_S = 30.0
UNAVAILABLE_AFTER = 5
"""Failures in a row after which a client says that its server is unavailable, instead of hiding it any longer."""

_MAX_EXPONENT = 64
"""Far beyond any cap, far below where a float overflows."""


def delay_s(
    attempt: int, random: Callable[[], float], *, base_s: float = BASE_S, cap_s: float = CAP_S, spread: float = 0.0
) -> float:
    """Return the wait before attempt `attempt` (from 0), in seconds: base x 2^attempt + U(0, base), at most the cap.

    `random` returns a number from 0 up to 1, as `random.random` does. With `spread`, a wait at the cap is shorter by up
    to that part of it, so that those who wait as long do not wait in step.
    """
    wait_s = base_s * 2.0 ** min(attempt, _MAX_EXPONENT) + base_s * random()
    return wait_s if wait_s < cap_s else cap_s * (1 - spread * random())


class Backoff:
    """The failures in a row of one thing that is tried again and again."""

    __slots__ = ("_base_s", "_cap_s", "_random", "_spread", "failures")

    def __init__(
        self,
        random: Callable[[], float] = _random.random,
        *,
        base_s: float = BASE_S,
        cap_s: float = CAP_S,
        spread: float = 0.0,
    ) -> None:
        self._random = random
        self._spread = spread
        self._base_s = base_s
        self._cap_s = cap_s
        self.failures = 0

    def next_delay_s(self) -> float:
        """Count a failure; return how long to wait before the next attempt, in seconds."""
        wait_s = delay_s(self.failures, self._random, base_s=self._base_s, cap_s=self._cap_s, spread=self._spread)
        self.failures += 1
        return wait_s

    @property
    def unavailable(self) -> bool:
        """Whether it failed so often in a row that the user should be told. Trying goes on all the same."""
        return self.failures >= UNAVAILABLE_AFTER

    def reset(self) -> None:
        """Forget the failures: an attempt succeeded."""
        self.failures = 0
