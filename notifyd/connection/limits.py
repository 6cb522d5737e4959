"""How much one connection may ask for: requests, heartbeats, and bytes before it is connected."""

import math

from notifyd.policy.token_bucket import TokenBucket
from notifyd.settings import Rate
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError, RequestError

FLOOD_FACTOR = 10
"""Requests that go on at ten times the rate, against 429, are a flood: one in ten is granted, nine are refused."""

HEARTBEATS_PER_S = 100
HEARTBEATS_BURST = 2_000
"""Heartbeats and WebSocket pings a connection may send: far above any sane interval, far below a burden."""

CONNECT_BYTES = 4096
"""What a client may send in all before it is connected: a token and some heartbeats."""

CONTROL_FRAME_BYTES = 128
"""What a WebSocket control frame is counted as there: it holds at most 125 bytes (RFC 6455 section 5.5)."""


class RequestLimits:
    """The token buckets of one connection."""

    __slots__ = ("_flood", "_heartbeats", "_own", "user")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._own = TokenBucket(rate.rate, rate.burst, now_s)
        self._flood: TokenBucket | None = None
        self._heartbeats: TokenBucket | None = None
        self.user: TokenBucket | None = None

    def reload(self, rate: Rate, now_s: float) -> None:
        """Let another rate hold; what was saved up stays, as far as the new burst allows."""
        if (rate.rate, rate.burst) != (self._own.rate, self._own.burst):
            self._own.resize(rate.rate, rate.burst, now_s)
            self._flood = None

    def take_request(self, now_s: float) -> None:
        """Count a request. Raises RequestError 429 above the rate, RemoteProtocolError (4029) for a flood."""
        own, user = self._own, self.user
        user_wait_s = 0.0 if user is None else user.wait_s(now_s)
        if user_wait_s > 0 or not own.take(now_s):
            self._take_flood(now_s)
            retry_after_s = math.ceil(max(user_wait_s, own.wait_s(now_s)) * 1000) / 1000
            raise RequestError(
                ErrorCode.RATE_LIMITED,
                f"too many requests: try again in {retry_after_s} s",
                retry_after_s=retry_after_s,
            )
        if user is not None:
            user.take(now_s)

    def _take_flood(self, now_s: float) -> None:
        """Count a refused request: a client that goes on, whatever it is told, is cut off."""
        if self._flood is None:
            self._flood = TokenBucket(self._own.rate * (FLOOD_FACTOR - 1), self._own.burst * FLOOD_FACTOR, now_s)
        if not self._flood.take(now_s):
            raise RemoteProtocolError("requests went on against 429", CloseCode.RATE_LIMITED)

    def take_heartbeats(self, amount: int, now_s: float) -> None:
        """Count heartbeats or WebSocket control frames. Raises RemoteProtocolError (4029) for a flood."""
        if self._heartbeats is None:
            self._heartbeats = TokenBucket(HEARTBEATS_PER_S, HEARTBEATS_BURST, now_s)
        if not self._heartbeats.take(now_s, amount):
            raise RemoteProtocolError(f"more than {HEARTBEATS_PER_S} heartbeats a second", CloseCode.RATE_LIMITED)
