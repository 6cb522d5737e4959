"""Which node a load goes to: one of its own that is started for it, or the one whose URL is given."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from notifyd.bench.load import Load
from notifyd.bench.orders import LoadTarget
from notifyd.bench.own_node import OwnNode, open_own_node
from notifyd.bench.vitals import Vitals
from notifyd.client.address import parse_address
from notifyd.errors import NotifydError


class Site(NamedTuple):
    """Where the load goes: the URL, what the load processes need of it, and how the server is."""

    url: str
    target: LoadTarget
    vitals: Vitals


@asynccontextmanager
async def open_site(load: Load) -> AsyncIterator[Site]:
    """Find the node, or run one for the length of the block. Raises NotifydError that says what to do."""
    if load.url is None:
        async with open_own_node(load) as node:
            url = own_url(load, node)
            yield Site(url, await resolve(url), Vitals(node.pid))
        return
    site = Site(load.url, await resolve(load.url), Vitals())
    async with trio.open_nursery() as nursery:
        if load.http is not None:
            await nursery.start(site.vitals.follow, load.http.rstrip("/"), load.api_key)
        yield site
        nursery.cancel_scope.cancel()


def own_url(load: Load, node: OwnNode) -> str:
    """Return the URL of our own node, by TLS where its settings say so."""
    is_secure = any(key.startswith("listen.tls") for key in load.settings)
    if load.transport == "device":
        return f"device{'+tls' if is_secure else ''}://{node.device}"
    return f"ws{'s' if is_secure else ''}://{node.websocket}/ws"


async def resolve(url: str) -> LoadTarget:
    """Look a URL's host up. Raises NotifydError for a URL that is none, and for a host that nobody knows."""
    address = parse_address(url)
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NotifydError(f"notifyd bench: {address.host} cannot be looked up: {error.strerror}") from None
    return LoadTarget(
        transport="device" if address.is_device else "websocket",
        host=address.host,
        ip=str(found[0][4][0]),
        port=address.port,
        is_secure=address.is_secure,
        authority=address.authority,
        path=address.target,
    )
