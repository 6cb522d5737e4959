"""Servers in memory at addresses of their own, for topologies in virtual time."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from notifyd.broker.redis.link import Dial, LinkLost
from notifyd.broker.redis.target import Endpoint, parse_target
from notifyd.broker.redis.topology.linking import Linking
from tests.kit.scripted_redis import ScriptedRedis
from tests.recorded_events import RecordedEvents


class ScriptedLinking(Linking):
    """Dials `servers`, by their addresses; everywhere else the connection is refused."""

    def __init__(self, url: str, addresses: Iterable[str], deadline_s: float = 1.0) -> None:
        super().__init__(parse_target(url), deadline_s=deadline_s, name="n1", events=RecordedEvents())
        self.servers = {address: ScriptedRedis() for address in addresses}
        self.dialled: list[str] = []

    def dial(self, endpoint: Endpoint) -> Dial:
        async def dial() -> trio.abc.Stream:
            self.dialled.append(str(endpoint))
            server = self.servers.get(str(endpoint))
            if server is None:
                raise LinkLost("Connection refused")
            return await server.dial()

        return dial

    def crash(self, address: str) -> None:
        """Cut its connections and refuse new ones, until `refusal` is taken back."""
        server = self.servers[address]
        server.refusal = LinkLost("Connection refused")
        for connection in server.connections:
            connection.reset()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let all servers serve while the block runs."""
        async with trio.open_nursery() as nursery:
            for server in self.servers.values():
                nursery.start_soon(server.serve)
            yield
            nursery.cancel_scope.cancel()
