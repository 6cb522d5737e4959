"""Everything that can fall due while a connection is silent: its handshake, its heartbeat, its token."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from notifyd.clock import Clock
from notifyd.settings import HeartbeatSettings
from protocol.codec import FrameType, encode_heartbeat
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError, RequestError
from protocol.liveness import Beat, ClientLiveness

LATE = "not connected in time: send 'connect' first, or give token or topics in the URL"
"""For whoever misspelt a parameter of the URL and wonders why nothing comes."""


class Watch:
    """The deadlines of one connection. `due_s` and every `now_s` are seconds of the node's monotonic clock."""

    __slots__ = ("_clock", "_connect_by_s", "_expires_s", "_settings", "liveness")

    def __init__(self, settings: HeartbeatSettings, handshake_s: float, clock: Clock) -> None:
        now_s = clock.monotonic_s()
        self._settings = settings
        self._clock = clock
        self._connect_by_s = now_s + handshake_s
        self._expires_s = inf
        self.liveness = ClientLiveness(
            interval_s=settings.interval_s, misses=settings.misses, floor_s=settings.floor_s, now_s=now_s
        )

    def reload(self, settings: HeartbeatSettings) -> None:
        """Let other bounds hold for a client that has not agreed yet, and for all when they count as lost."""
        self._settings = settings
        self.liveness.misses, self.liveness.floor_s = settings.misses, settings.floor_s

    def heard(self) -> None:
        """Take note that bytes arrived from the client, whatever they are."""
        self.liveness.heard(self._clock.monotonic_s())

    @property
    def due_s(self) -> float:
        """When `beat` has to be called next."""
        return min(self._connect_by_s, self._expires_s, self.liveness.due_s)

    def beat(self, now_s: float) -> bytes:
        """Do what is due: return the 16 bytes of a PING to send, or b"".

        Raises RemoteProtocolError with the close code when the client ran out of time.
        """
        if now_s >= self._connect_by_s:
            raise RemoteProtocolError(LATE, CloseCode.UNAUTHORIZED)
        if now_s >= self._expires_s:
            raise RemoteProtocolError("the token expired", CloseCode.UNAUTHORIZED)
        beat = self.liveness.beat(now_s)
        if beat is Beat.LOST:
            raise RemoteProtocolError("heartbeat lost", CloseCode.HEARTBEAT_LOST)
        return encode_heartbeat(FrameType.PING, self.liveness.ping(now_s)) if beat is Beat.PING else b""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the time in which the client waits for us not count against it."""
        left_s, self._connect_by_s = self._connect_by_s - self._clock.monotonic_s(), inf
        try:
            yield
        finally:
            self._connect_by_s = self._clock.monotonic_s() + left_s

    def connected(self, expires_s: float | None) -> None:
        """Stop waiting for `connect`; from now on the token's end counts (Unix time, None for never)."""
        self._connect_by_s = inf
        self.expire_at(expires_s)

    def expire_at(self, expires_s: float | None) -> None:
        """Set the token's end, in Unix time."""
        clock = self._clock
        self._expires_s = inf if expires_s is None else clock.monotonic_s() + (expires_s - clock.unix_s())

    def agree(self, wished_s: float | None) -> float:
        """Take the client's wish for a heartbeat; return the seconds that hold.

        Raises RequestError 400 for a wish that is not a positive number.
        """
        if wished_s is not None:
            if not 0 < wished_s < inf:
                raise RequestError(ErrorCode.BAD_REQUEST, f"heartbeat is a positive number of seconds, not {wished_s}")
            self.liveness.interval_s = min(max(wished_s, self._settings.minimum_s), self._settings.maximum_s)
        return self.liveness.interval_s
