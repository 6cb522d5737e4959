"""When operations are due: a fixed schedule, whatever became of those before.

Latencies count from when an operation was due, not from when it was sent: a server that stalls is charged for all that
it kept waiting (no coordinated omission).
"""

LATE_NS = 10_000_000
"""Sent later than this, an operation was late."""


class Schedule:
    """The times at which one process sends, `rate` a second from `start_ns` on."""

    def __init__(self, rate: float, start_ns: int) -> None:
        self._interval_ns = 1e9 / rate
        self._start_ns = start_ns
        self._taken = 0
        self.is_held = False
        self.late = 0
        """Sent late although they could have been sent: the load was too slow, not the server."""

    @property
    def next_ns(self) -> int:
        """When the next operation is due."""
        return self._start_ns + int(self._taken * self._interval_ns)

    def take(self, now_ns: int) -> int:
        """Take the operation that is due: the time that it was due at."""
        due_ns = self.next_ns
        self._taken += 1
        if now_ns - due_ns > LATE_NS and not self.is_held:
            self.late += 1
        return due_ns

    def hold(self) -> None:
        """Note that nothing can be sent now, for the server owes too many answers."""
        self.is_held = True

    def release(self) -> None:
        """Note that all that was due has been sent: what is late from here on is so by this process."""
        self.is_held = False
