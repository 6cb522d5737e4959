"""Where a crowd waits: clients that come back at the same moment are let in one after the other, in their order.

Those who are in do not suffer from those who come, and each second takes its share of the work.
"""

import random
from collections.abc import Callable

import trio

from notifyd.clock import Clock
from notifyd.errors import NotifydError
from notifyd.policy.token_bucket import TokenBucket
from notifyd.settings import Rate

LEAST_WAIT_S = 0.001
"""Less than this no clock need tell apart."""


class Crowded(NotifydError):
    """Too many clients wait already; `retry_after_s` is for this one, spread over the time that they will take."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many clients connect at the moment")
        self.retry_after_s = retry_after_s


class Door:
    """Lets in at most `rate.rate` clients a second, and `rate.burst` at once after a pause.

    Who would wait longer than `patience_s` is sent away. `random` returns a number from 0 up to 1.
    """

    def __init__(
        self, rate: Rate, patience_s: float, clock: Clock, random: Callable[[], float] = random.random
    ) -> None:
        self._bucket = TokenBucket(rate.rate, rate.burst, clock.monotonic_s())
        self._patience_s = patience_s
        self._now_s = clock.monotonic_s
        self._random = random
        self._turn = trio.Lock()
        self._waiting = 0

    def lets_in(self) -> bool:
        """Let a client in at once, where nobody waits before it and one may come; else `pass_through` is for it."""
        return not self._waiting and self._bucket.take(self._now_s())

    async def pass_through(self) -> None:
        """Return when it is this client's turn. Raises Crowded, at once. Cancelled, the next one has the turn."""
        if self._waiting > self._bucket.rate * self._patience_s:
            raise Crowded(self._patience_s * (0.5 + self._random()))
        self._waiting += 1
        try:
            async with self._turn:
                while not self._bucket.take(now_s := self._now_s()):  # noqa: ASYNC110 - time itself is waited for
                    await trio.sleep(max(self._bucket.wait_s(now_s), LEAST_WAIT_S))
        finally:
            self._waiting -= 1
