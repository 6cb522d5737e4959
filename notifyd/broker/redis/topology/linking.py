"""Making links to the servers of a target: transport, credentials, database and deadline are those of `broker.url`."""

import re
import ssl
from collections.abc import Callable

from notifyd.broker.redis.dialing import dial_server
from notifyd.broker.redis.greeting import Role, greeting
from notifyd.broker.redis.link import Dial, Greet, Link, ignore
from notifyd.broker.redis.target import Endpoint, Target
from notifyd.broker.redis.topology.base import OnPushes
from notifyd.events import Events

CONNECT_S = 2.0
"""The least time that connecting may take: one lost packet and a TLS handshake. Nobody waits for it meanwhile."""

_NOT_IN_A_NAME = re.compile("[^!-~]")


class Linking:
    """What all links of a node have in common. `name` is what the servers' CLIENT LIST shows, as far as it may.

    `on_up` is called, synchronously, whenever a link for commands has come up.

    Raises ValueError when the files of TLS cannot be used. Reads them, so it blocks: for start-up.
    """

    def __init__(self, target: Target, *, deadline_s: float, name: str, events: Events) -> None:
        self.target = target
        self.deadline_s = deadline_s
        self.events = events
        self.on_up: list[Callable[[], None]] = []
        self._name = _NOT_IN_A_NAME.sub("_", name)
        self._tls: ssl.SSLContext | None = None if target.tls is None else target.tls.context()

    def dial(self, endpoint: Endpoint) -> Dial:
        """Make a function that connects to a server."""
        return dial_server(endpoint, self._tls, deadline_s=max(self.deadline_s, CONNECT_S))

    def greet(self, role: Role | None) -> Greet:
        """Make the greeting of a server that has data, or (role "sentinel") of a Sentinel."""
        credentials = self.target.sentinel_credentials if role == "sentinel" else self.target.credentials
        database = 0 if role == "sentinel" else self.target.database
        return greeting(credentials, database=database, client_name=self._name, role=role)

    def link(self, endpoint: Endpoint, on_pushes: OnPushes = ignore, *, role: Role | None = "master") -> Link:
        """Make a link to a server, which is accepted only in this role (None: any)."""
        return self.custom_link(f"redis at {endpoint}", self.dial(endpoint), self.greet(role), on_pushes)

    def custom_link(self, name: str, dial: Dial, greet: Greet, on_pushes: OnPushes = ignore) -> Link:
        """Make a link whose way to a server is the caller's."""
        on_up = self._tell_up if on_pushes is ignore else None
        return Link(name, dial, greet, deadline_s=self.deadline_s, events=self.events, on_pushes=on_pushes, on_up=on_up)

    def _tell_up(self) -> None:
        for callback in self.on_up:
            callback()
