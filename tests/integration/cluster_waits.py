"""What tests of several nodes wait for: that a session is saved, and that a client has heard all it should."""

from collections.abc import Iterable
from typing import Any

import msgspec
import trio
from redis import Redis

from notifyd.broker.redis.keys import Names
from tests.kit.redis_node import Caller
from tests.kit.until import until

HEARD_S = 5.0
SURPLUS_S = 0.3
"""For what should not come."""


async def wait_saved(url: str, prefix: str, session: str, topics: Iterable[str]) -> None:
    """Wait until the record of a session in Redis has these topics, and no others."""
    key, wanted = Names(prefix).session(session), set(topics)
    with Redis.from_url(url) as redis:
        await until(lambda: _topics(redis.hget(key, "r")) == wanted)


def _topics(record: Any) -> set[str]:
    positions, _ = msgspec.msgpack.decode(record) if record else ({}, [])
    return set(positions)


async def heard_all(client: Caller, count: int) -> list[dict[str, Any]]:
    """Wait until so many pushes have come to a client; those, and what came too much."""
    pushes: list[dict[str, Any]] = []
    until_s = trio.current_time() + HEARD_S
    while len(pushes) < count and trio.current_time() < until_s:
        pushes += await client.heard()
        await trio.sleep(0.02)
    await trio.sleep(SURPLUS_S)
    return pushes + await client.heard()
