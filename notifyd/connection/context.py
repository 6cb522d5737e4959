"""What all connections of a node share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from notifyd.auth.tokens import Verifier
from notifyd.events import Events
from notifyd.hub.hub import Hub
from notifyd.model import Clock
from notifyd.policy.token_bucket import TokenBucket
from notifyd.settings import Rate, Settings

if TYPE_CHECKING:
    from notifyd.connection.connection import Connection


class UserBuckets:
    """One token bucket a user, kept while the user has a connection. Without a rate, nobody is limited."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._buckets: dict[str, tuple[TokenBucket, int]] = {}

    def acquire(self, user: str, now_s: float) -> TokenBucket | None:
        """Return the user's bucket for one more connection; each call is followed by one `release`."""
        if self._rate is None:
            return None
        bucket, holders = self._buckets.get(user) or (TokenBucket(self._rate.rate, self._rate.burst, now_s), 0)
        self._buckets[user] = (bucket, holders + 1)
        return bucket

    def release(self, user: str) -> None:
        """Let go of the user's bucket; the last connection's release forgets it."""
        if user in self._buckets:
            bucket, holders = self._buckets.pop(user)
            if holders > 1:
                self._buckets[user] = (bucket, holders - 1)


class Connections:
    """Every open connection of a node, handshakes included, the longest open first."""

    def __init__(self) -> None:
        self._open: dict[Connection, None] = {}
        self._emptied = trio.Event()

    def add(self, connection: "Connection") -> None:
        """Take in a connection; each call is followed by one `remove`."""
        self._open[connection] = None

    def remove(self, connection: "Connection") -> None:
        """Let a connection go."""
        del self._open[connection]
        if not self._open:
            self._emptied.set()
            self._emptied = trio.Event()

    async def wait_empty(self) -> None:
        """Wait until none is open."""
        while self._open:
            await self._emptied.wait()

    def __iter__(self) -> Iterator["Connection"]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)


@dataclass(frozen=True, slots=True)
class Context:
    """The node around a connection."""

    settings: Settings
    hub: Hub
    verifier: Verifier
    clock: Clock
    events: Events
    user_buckets: UserBuckets
    connections: Connections = field(default_factory=Connections)
