"""Asking one server: what takes more than one command, and what its errors mean to those above."""

from typing import Any

import trio
from redis.exceptions import RedisError
from redis.typing import EncodableT

from notifyd.broker.redis.link import Link, LinkLost
from notifyd.errors import BrokerUnavailable, first_of

SCAN_COUNT = 1000
"""Keys looked at by one step of SCAN: some 0.2 ms of a server's time."""


def server_refused(link: Link, error: RedisError) -> BrokerUnavailable:
    """Say that a server answered with an error nobody here expects: out of memory, no permission, a wrong type."""
    return BrokerUnavailable(f"{link.name} refused: {error}")


async def scan_server(link: Link, pattern: str) -> set[str]:
    """Return all keys of one server that match. Raises the server's error."""
    found: set[str] = set()
    cursor: EncodableT = 0
    while True:
        cursor, keys = await link.execute("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        found.update(key.decode(errors="replace") for key in keys)
        if int(cursor) == 0:
            return found


async def ask_once(link: Link, *command: EncodableT) -> Any:
    """Connect, send one command, hang up; for a link that nobody runs otherwise. Raises LinkLost, in words."""
    reply, lost = None, None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            reply = await link.execute(*command)
            nursery.cancel_scope.cancel()
    except* (LinkLost, BrokerUnavailable, RedisError) as group:
        lost = LinkLost(str(first_of(group)))
    if lost is not None:
        raise lost
    return reply
