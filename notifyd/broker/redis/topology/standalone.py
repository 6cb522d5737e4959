"""One server, always at the same place."""

from notifyd.broker.base import Services
from notifyd.broker.redis.link import Link
from notifyd.broker.redis.topology.base import OnPushes
from notifyd.broker.redis.topology.linked import LinkedServer
from notifyd.broker.redis.topology.linking import Linking
from notifyd.broker.redis.topology.single import COMMAND_LINK, SingleServer


class StandaloneServers(SingleServer):
    """The `Servers` of redis://, rediss:// and unix://."""

    def __init__(self, linking: Linking) -> None:
        super().__init__()
        self._linking = linking
        self._endpoint = linking.target.endpoints[0]
        self._server = LinkedServer(linking.link(self._endpoint), linking.deadline_s)

    async def start(self, services: Services) -> None:
        """Launch the link; see Servers."""
        services.launch(COMMAND_LINK, self._server.run)

    def feed_home(self, channel: str) -> str:  # noqa: ARG002 - there is one place only
        """Name the server; see Servers."""
        return str(self._endpoint)

    def open_feed(self, home: str, on_pushes: OnPushes) -> Link:  # noqa: ARG002 - likewise
        """Make a link for pub/sub; see Servers."""
        return self._linking.link(self._endpoint, on_pushes)
