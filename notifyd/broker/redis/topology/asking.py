"""Asking one server: what takes more than one command, and what its errors mean to those above."""

from collections.abc import Sequence
from typing import Any

import trio
from redis.exceptions import NoScriptError, RedisError
from redis.typing import EncodableT

from notifyd.broker.redis.link import Link, LinkLost
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Command
from notifyd.errors import BrokerUnavailable

SCAN_COUNT = 1000
"""Keys looked at by one step of SCAN: some 0.2 ms of a server's time."""


def server_refused(link: Link, error: RedisError) -> BrokerUnavailable:
    """Say that a server answered with an error nobody here expects: out of memory, no permission, a wrong type."""
    return BrokerUnavailable(f"{link.name} refused: {error}")


def evalsha(link: Link, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT]) -> Command:
    """Return the command that runs a script by its SHA on the server of `link`, whose ids it ends with."""
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments, *_replication_ids(link))


def by_text(command: Command, script: Script) -> Command:
    """Return the same call with the script's text, for a server that does not know its SHA."""
    return ("EVAL", script.text, *command[2:])


def _replication_ids(link: Link) -> tuple[str, str]:
    server = link.server
    return ("", "") if server is None else (server.replication_id, server.previous_replication_id)


async def run_script(link: Link, script: Script, keys: Sequence[str], arguments: Sequence[EncodableT]) -> Any:
    """Run a script by its SHA, by its text where the server does not know it. Raises the server's error."""
    command = evalsha(link, script, keys, arguments)
    try:
        return await link.execute(*command)
    except NoScriptError:
        return await link.execute(*by_text(command, script))


async def scan_server(link: Link, pattern: str) -> set[str]:
    """Return all keys of one server that match. Raises the server's error."""
    found: set[str] = set()
    cursor: EncodableT = 0
    while True:
        cursor, keys = await link.execute("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        found.update(key.decode(errors="surrogateescape") for key in keys)
        if int(cursor) == 0:
            return found


async def ask_once(link: Link, *command: EncodableT) -> Any:
    """Connect, send one command, hang up; for a link that nobody runs otherwise. Raises LinkLost, in words."""
    reply = None
    failures: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            reply = await link.execute(*command)
            nursery.cancel_scope.cancel()
    except* (LinkLost, BrokerUnavailable, RedisError) as group:
        failures += map(str, group.exceptions)
    if failures:
        raise LinkLost(failures[0])
    return reply
