"""Heartbeat bookkeeping: round trips, the adaptive timeout, when a PING is due and when a peer is lost.

No clock in here: every `now_s` is seconds of the caller's clock, which is never negative and never runs backwards. The
caller sleeps until `due_s`, asks `beat`, and does what it says: sends a PING stamped by `ping`, or ends the connection.

Source: spec/wire.md, "Heartbeat".
"""

from abc import ABC, abstractmethod
from enum import Enum

SAMPLES = 5
"""Round trips kept: enough to even out one bad one, few enough to follow a changed path within minutes."""

TIMEOUT_FACTOR = 3
PINGS_EVERY = 5
"""A server PINGs even a talkative client each fifth heartbeat, since only a PONG measures the round trip."""

DEFAULT_INTERVAL_S = 30.0
DEFAULT_MISSES = 2
DEFAULT_FLOOR_S = 10.0


class Beat(Enum):
    """What the owner of a connection has to do about its heartbeat now."""

    NOTHING = "nothing"
    PING = "ping"
    LOST = "lost"


class RoundTrips(tuple[float, ...]):
    """The last five round trips, in seconds, and the timeout they make: a value, of which all begin with the same."""

    __slots__ = ()

    def with_sample(self, round_trip_s: float) -> "RoundTrips":
        """Take a sample; the sixth last is forgotten."""
        return RoundTrips((*self, round_trip_s)[-SAMPLES:])

    @property
    def mean_s(self) -> float | None:
        """The mean of the kept samples; None before the first."""
        return sum(self) / len(self) if self else None

    def timeout_s(self, floor_s: float) -> float:
        """Return three times the mean, at least `floor_s`; with no sample yet, `floor_s`."""
        mean_s = self.mean_s
        return floor_s if mean_s is None else max(TIMEOUT_FACTOR * mean_s, floor_s)


_NO_TRIPS = RoundTrips()


class _Liveness(ABC):
    """What both sides keep: when the peer was last heard, the last PING sent, the round trips.

    Only the last PING is remembered: a peer that withholds its PONGs costs no memory, and the longest round trip it can
    pretend is the time between two PINGs.
    """

    __slots__ = ("_answered", "_heard_s", "_pinged_s", "_trips", "floor_s", "interval_s")

    def __init__(self, *, interval_s: float, floor_s: float, now_s: float) -> None:
        self.interval_s = interval_s
        self.floor_s = floor_s
        self._heard_s = now_s
        self._pinged_s = now_s
        self._answered = True
        self._trips = _NO_TRIPS

    @property
    def heard_s(self) -> float:
        """When the peer was last heard."""
        return self._heard_s

    @property
    def round_trip_s(self) -> float | None:
        """The mean of the last five round trips; None before the first."""
        return self._trips.mean_s

    @property
    def timeout_s(self) -> float:
        """The adaptive timeout that holds now."""
        return self._trips.timeout_s(self.floor_s)

    @property
    @abstractmethod
    def lost_s(self) -> float:
        """When the peer is lost if nothing more is heard of it; infinite while nothing is expected of it."""

    @property
    @abstractmethod
    def ping_s(self) -> float:
        """When the next PING is due."""

    @property
    def due_s(self) -> float:
        """When something may have to be done; asking `beat` earlier gives NOTHING."""
        return min(self.ping_s, self.lost_s)

    def beat(self, now_s: float) -> Beat:
        """Say what has to be done now. PING is repeated until `ping` says that it was sent."""
        if now_s >= self.lost_s:
            return Beat.LOST
        return Beat.PING if now_s >= self.ping_s else Beat.NOTHING

    def heard(self, now_s: float) -> None:
        """Note that bytes arrived, whatever they were."""
        self._heard_s = now_s

    def ping(self, now_s: float) -> int:
        """Note that a PING leaves now; return the timestamp it must carry, in ms of the caller's monotonic clock."""
        self._pinged_s = now_s
        self._answered = False
        return _timestamp_ms(now_s)

    def pong(self, timestamp_ms: int, now_s: float) -> float | None:
        """Note that a PONG arrived; return the round trip in seconds where it is the first to answer the last PING.

        Any other timestamp is a sign of life like any other byte: no sample, None.
        """
        self.heard(now_s)
        if self._answered or timestamp_ms != _timestamp_ms(self._pinged_s):
            return None
        self._answered = True
        round_trip_s = now_s - self._pinged_s
        self._trips = self._trips.with_sample(round_trip_s)
        return round_trip_s


class ClientLiveness(_Liveness):
    """What a server knows of one client.

    The client PINGs every `interval_s` by itself; the server PINGs one it has not heard for an interval, and each at
    least every fifth. Lost: no byte for `misses` intervals and the timeout. `interval_s` may be replaced at any time.
    """

    __slots__ = ("misses",)

    def __init__(self, *, interval_s: float, misses: int, floor_s: float, now_s: float) -> None:
        super().__init__(interval_s=interval_s, floor_s=floor_s, now_s=now_s)
        self.misses = misses

    @property
    def lost_s(self) -> float:
        """When the client is lost if nothing more is heard of it."""
        return self._heard_s + (self.misses * self.interval_s + self.timeout_s)

    @property
    def ping_s(self) -> float:
        """When the next PING is due: an interval after the last byte or PING, and at most five after the last PING."""
        silent_s = max(self._heard_s, self._pinged_s) + self.interval_s
        return min(silent_s, self._pinged_s + PINGS_EVERY * self.interval_s)


class ServerLiveness(_Liveness):
    """What a client knows of its server: PING every `interval_s`; lost when a PING is followed by nothing but silence.

    The timeout is counted from the first PING since something was heard, so that a short interval does not put it off.
    """

    __slots__ = ("_waiting_s",)

    def __init__(self, *, interval_s: float, floor_s: float, now_s: float) -> None:
        super().__init__(interval_s=interval_s, floor_s=floor_s, now_s=now_s)
        self._waiting_s: float | None = None

    @property
    def lost_s(self) -> float:
        """When the server is lost if nothing more is heard of it; infinite while no PING waits for a sign of life."""
        return float("inf") if self._waiting_s is None else self._waiting_s + self.timeout_s

    @property
    def ping_s(self) -> float:
        """When the next PING is due: an interval after the last one."""
        return self._pinged_s + self.interval_s

    def heard(self, now_s: float) -> None:
        """Note that bytes arrived, whatever they were."""
        super().heard(now_s)
        self._waiting_s = None

    def ping(self, now_s: float) -> int:
        """Note that a PING leaves now; return the timestamp it must carry, in ms of the caller's monotonic clock."""
        if self._waiting_s is None:
            self._waiting_s = now_s
        return super().ping(now_s)


def _timestamp_ms(now_s: float) -> int:
    return int(now_s * 1000)
