"""The servers of a URL, connected to by services that run for the length of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifyd.broker.redis.target import parse_target
from notifyd.broker.redis.topology import servers_for
from notifyd.broker.redis.topology.base import Servers
from tests.kit.services import RunServices, open_services
from tests.kit.until import until
from tests.recorded_events import RecordedEvents

DEADLINE_S = 1.0


@asynccontextmanager
async def open_servers(url: str, deadline_s: float = DEADLINE_S) -> AsyncIterator[tuple[Servers, RunServices]]:
    """Begin to connect."""
    servers = servers_for(parse_target(url), deadline_s=deadline_s, name="n1", events=RecordedEvents())
    async with open_services() as services:
        await servers.start(services)
        yield servers, services


@asynccontextmanager
async def connected_servers(url: str, deadline_s: float = DEADLINE_S) -> AsyncIterator[Servers]:
    """Connect, and wait until nothing is amiss."""
    async with open_servers(url, deadline_s) as (servers, _):
        await until(lambda: not servers.problems())
        yield servers
