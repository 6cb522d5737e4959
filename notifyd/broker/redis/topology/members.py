"""The masters of a Cluster that are linked to: one service each."""

from collections.abc import Callable, Collection, Iterator

import trio

from notifyd.broker.base import Services
from notifyd.broker.redis.greeting import ServerInfo
from notifyd.broker.redis.link import Link, LinkLost, ignore
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.base import OnPushes
from notifyd.broker.redis.topology.linked import LinkedServer
from notifyd.broker.redis.topology.linking import Linking

SHARDED_CHANNELS = (7, 0, 0)
"""The first version that has SPUBLISH and SSUBSCRIBE."""


UNASKED = "has not told yet whether the Cluster is up"
DOWN = "says that the Cluster is down"


class ClusterMember(LinkedServer):
    """A server of the Cluster, and where it is. `trouble` is what it says about the Cluster when that is not well."""

    def __init__(self, endpoint: Endpoint, link: Link, deadline_s: float, on_turn: Callable[[], None]) -> None:
        super().__init__(link, deadline_s, on_turn)
        self.endpoint = endpoint
        self.trouble = UNASKED

    def problem(self) -> str:
        """Tell what is wrong with it; "" when nothing is."""
        return super().problem() or (f"{self.link.name} {self.trouble}" if self.trouble else "")

    def _turn(self) -> None:
        if not self.link.is_up:
            self.trouble = UNASKED
        super()._turn()


class Members:
    """The links by endpoint. `on_turn` is called whenever one came up or ended.

    `has_sharded_channels` says whether all of them have, as far as they have ever been reached; None: none has been.

    One that serves no slot any more is stopped only after the deadline, so that whatever it was asked before is
    answered: with MOVED, if need be.
    """

    def __init__(self, linking: Linking, on_turn: Callable[[], None]) -> None:
        self.has_sharded_channels: bool | None = None
        self._linking = linking
        self._on_turn = on_turn
        self._services: Services | None = None
        self._linked: dict[Endpoint, ClusterMember] = {}
        self._leaving_since_s: dict[Endpoint, float] = {}

    def start(self, services: Services) -> None:
        """Run links there from now on."""
        self._services = services

    def at(self, endpoint: Endpoint) -> ClusterMember:
        """Return the server there; its link is launched when it is asked for first."""
        server = self._linked.get(endpoint)
        if server is None:
            link = self.new_link(endpoint)
            server = ClusterMember(endpoint, link, self._linking.deadline_s, self._turn)
            self._linked[endpoint] = server
            assert self._services is not None, "started before anything is asked"
            self._services.launch(_service_name(endpoint), server.run)
        return server

    def new_link(self, endpoint: Endpoint, on_pushes: OnPushes = ignore) -> Link:
        """Make a link to a master, for commands or for pub/sub."""
        greet = self._linking.greet(None)

        async def greet_master(link: Link) -> ServerInfo:
            server = await greet(link)
            if server.role != "master":
                raise LinkLost("it is a replica now: another one serves its slots")
            return server

        return self._linking.custom_link(f"redis at {endpoint}", self._linking.dial(endpoint), greet_master, on_pushes)

    def up(self) -> Iterator[ClusterMember]:
        """Yield those whose link is up."""
        return (server for server in self._linked.values() if server.link.is_up)

    def keep(self, masters: Collection[Endpoint]) -> None:
        """Link to these masters, and let the others go."""
        for endpoint in masters:
            self.at(endpoint)
        now_s = trio.current_time()
        gone = self._linked.keys() - set(masters)
        self._leaving_since_s = {endpoint: self._leaving_since_s.get(endpoint, now_s) for endpoint in gone}
        self._learn()

    @property
    def are_leaving(self) -> bool:
        """Whether some wait for being stopped."""
        return bool(self._leaving_since_s)

    async def stop_those_gone(self) -> None:
        """Stop the links to masters that left long enough ago."""
        assert self._services is not None, "started before anything is stopped"
        before_s = trio.current_time() - self._linking.deadline_s
        for endpoint, since_s in [*self._leaving_since_s.items()]:
            if since_s <= before_s:
                await self._services.stop(_service_name(endpoint))
                del self._linked[endpoint]
                del self._leaving_since_s[endpoint]

    def _turn(self) -> None:
        self._learn()
        self._on_turn()

    def _learn(self) -> None:
        """Take note of what the servers can, of those that have ever said so."""
        versions = [
            server.link.server.version
            for endpoint, server in self._linked.items()
            if server.link.server is not None and endpoint not in self._leaving_since_s
        ]
        if versions:
            self.has_sharded_channels = min(versions) >= SHARDED_CHANNELS


def _service_name(endpoint: Endpoint) -> str:
    return f"redis {endpoint}"
