"""One server at a time, and Sentinels that say which one: after a failover it is another."""

import trio
from redis.exceptions import RedisError

from notifyd.broker.base import Services
from notifyd.broker.redis.greeting import ServerInfo
from notifyd.broker.redis.link import Link, LinkLost
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.base import OnPushes
from notifyd.broker.redis.topology.linked import LinkedServer
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.sentinels import Sentinels
from notifyd.broker.redis.topology.single import COMMAND_LINK, SingleServer
from notifyd.errors import BrokerUnavailable

WATCH = "sentinel"
"""What the service that listens to a Sentinel is called in the supervision tree."""


class SentinelServers(SingleServer):
    """The `Servers` of redis+sentinel:// and rediss+sentinel://.

    The Sentinels are asked again each time the link is made, and a server is taken only when it says itself that it is
    a master. The old master is left as soon as a Sentinel tells of another.
    """

    def __init__(self, linking: Linking) -> None:
        super().__init__()
        self._linking = linking
        self._sentinels = Sentinels(linking, self._leave_for)
        self._dialled: Endpoint | None = None
        self._master: Endpoint | None = None
        name = f"redis of service {linking.target.service!r}"
        self._server = LinkedServer(linking.custom_link(name, self._dial, self._greet), linking.deadline_s)

    async def start(self, services: Services) -> None:
        """Launch the command link and the watch; see Servers."""
        services.launch(COMMAND_LINK, self._server.run)
        services.launch(WATCH, self._sentinels.watch)

    def feed_home(self, channel: str) -> str:  # noqa: ARG002 - one server has all channels
        """Name the master; see Servers."""
        if self._master is None:
            raise BrokerUnavailable(f"{self._server.link.name}: no Sentinel has named the master yet")
        return str(self._master)

    def open_feed(self, home: str, on_pushes: OnPushes) -> Link:
        """Make a link for pub/sub to this master; see Servers. The next master is another home."""
        master = self._master
        if master is None or home != str(master):
            raise BrokerUnavailable(f"{self._server.link.name}: {home} is not the master any more")

        async def greet(link: Link) -> ServerInfo:
            return await self._greet_master(link, master)

        return self._linking.custom_link(f"redis at {home}", self._linking.dial(master), greet, on_pushes)

    async def _dial(self) -> trio.abc.Stream:
        self._dialled = master = await self._sentinels.master()
        try:
            return await self._linking.dial(master)()
        except LinkLost as error:
            self._sentinels.distrust()
            raise LinkLost(f"{master}: {error}") from None

    async def _greet(self, link: Link) -> ServerInfo:
        master = self._dialled
        assert master is not None, "dialled before it is greeted"
        try:
            server = await self._greet_master(link, master)
        except LinkLost:
            self._sentinels.distrust()
            raise
        self._take(master)
        return server

    async def _greet_master(self, link: Link, master: Endpoint) -> ServerInfo:
        try:
            server = await self._linking.greet(None)(link)
        except LinkLost as error:
            raise LinkLost(f"{master}: {error}") from None
        try:
            role, *_ = await link.execute_unready("ROLE")
        except RedisError as error:
            raise LinkLost(f"{master}: asked for its role, it says: {error}") from None
        if role != b"master":
            raise LinkLost(f"{master}: the Sentinels named it, but it is no master")
        return server

    def _leave_for(self, master: Endpoint) -> None:
        """Leave the old master for the one that a Sentinel told of."""
        if master != self._dialled:
            self._server.link.drop(f"the Sentinels have made {master} the master")
        self._take(master)

    def _take(self, master: Endpoint) -> None:
        if master != self._master:
            self._master = self._sentinels.known = master
            self._linking.events.log("info", "broker_master", server=str(master))
            self._tell_change()
