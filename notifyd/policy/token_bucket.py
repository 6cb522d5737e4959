"""A token bucket: `rate` tokens a second, at most `burst` of them saved up. Time is an argument."""

import math


class TokenBucket:
    """Full at the start. In any span of t seconds it grants at most `burst + rate * t`."""

    __slots__ = ("_level", "_seen_s", "burst", "rate")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._seen_s = now_s

    def take(self, now_s: float, amount: float = 1) -> bool:
        """Take `amount` tokens if there are as many; otherwise take none and return False."""
        self._refill(now_s)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def wait_s(self, now_s: float, amount: float = 1) -> float:
        """Return the seconds until `amount` tokens will be there: 0 when they are, infinite when they never will be."""
        self._refill(now_s)
        if amount > self.burst:
            return math.inf
        return max(0.0, (amount - self._level) / self.rate)

    def resize(self, rate: float, burst: float, now_s: float) -> None:
        """Let another rate and burst hold from now on; what is saved up stays, but for what is above the burst."""
        self._refill(now_s)
        self.rate, self.burst = rate, burst
        self._level = min(self._level, burst)

    def _refill(self, now_s: float) -> None:
        # A clock that stands still or runs backwards earns nothing, and does not earn the same second twice.
        if now_s > self._seen_s:
            self._level = min(self.burst, self._level + (now_s - self._seen_s) * self.rate)
            self._seen_s = now_s
