"""What all connections of a node share."""

from dataclasses import dataclass, field

from notifyd.auth.api_keys import ApiKeys
from notifyd.auth.tokens import Verifier
from notifyd.clock import Clock
from notifyd.connection.connections import Connections
from notifyd.connection.door import Door
from notifyd.events import Events
from notifyd.hub.hub import Hub
from notifyd.model import ANONYMOUS
from notifyd.policy.token_bucket import TokenBucket
from notifyd.settings import Rate, Settings


class UserBuckets:
    """One token bucket a user, kept while the user has a connection. Without a rate, nobody is limited.

    The anonymous user has none: many strangers would share it, and one of them could keep the others from asking.
    """

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._buckets: dict[str, tuple[TokenBucket, int]] = {}

    def reload(self, rate: Rate | None) -> bool:
        """Let another rate hold; True where it is another one: then whoever holds a bucket has to acquire it anew."""
        if rate == self._rate:
            return False
        self._rate = rate
        self._buckets = {}
        return True

    def acquire(self, user: str, now_s: float) -> TokenBucket | None:
        """Return the user's bucket for one more connection; each call is followed by one `release`."""
        if self._rate is None or user == ANONYMOUS.user:
            return None
        bucket, holders = self._buckets.get(user) or (TokenBucket(self._rate.rate, self._rate.burst, now_s), 0)
        self._buckets[user] = (bucket, holders + 1)
        return bucket

    def release(self, user: str, held: TokenBucket | None) -> None:
        """Let go of the bucket that `acquire` returned; the last connection's release forgets it."""
        bucket, holders = self._buckets.get(user, (None, 0))
        if bucket is None or bucket is not held:  # one of before a reload
            return
        del self._buckets[user]
        if holders > 1:
            self._buckets[user] = (bucket, holders - 1)


@dataclass(slots=True)
class Context:
    """The node around a connection. `reload` replaces what it holds of the settings; nothing else changes it."""

    settings: Settings
    hub: Hub
    verifier: Verifier
    clock: Clock
    events: Events
    user_buckets: UserBuckets
    api_keys: ApiKeys = field(init=False)
    door: Door = field(init=False)
    connections: Connections = field(default_factory=Connections)

    def __post_init__(self) -> None:
        """Begin with nobody waiting."""
        self.api_keys = ApiKeys(self.settings.auth.api_keys)
        self.door = self._new_door(self.settings)

    def reload(self, settings: Settings) -> None:
        """Let new settings hold; operators whose API key is gone are disconnected.

        Raises ConfigurationError, and nothing has changed, when their keys are no good.
        """
        self.verifier = Verifier(settings.auth, self.clock.unix_s, self.hub.revocations)
        old, self.settings = self.settings, settings
        if settings.limits != old.limits:
            self.door = self._new_door(settings)
        self.api_keys = ApiKeys(settings.auth.api_keys)
        self.connections.recheck_operators(self.api_keys)
        self.hub.reload(settings)
        new_rate = self.user_buckets.reload(settings.limits.user_messages)
        if (settings.limits, settings.heartbeat) != (old.limits, old.heartbeat):
            for connection in self.connections:
                connection.reload(settings, new_user_rate=new_rate)
                self.connections.schedule(connection)

    def _new_door(self, settings: Settings) -> Door:
        return Door(settings.limits.connects, settings.limits.handshake_s, self.clock)
