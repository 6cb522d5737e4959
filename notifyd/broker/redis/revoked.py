"""Revocations in Redis, so that nodes which come later refuse the same tokens. Each is forgotten after its time."""

from math import inf

import msgspec

from notifyd.auth.revocations import Revocation
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.records import readable
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers

LATEST_S = 2**33
"""In 2242: a revocation without end is kept until then."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Revocation).decode


class RedisRevocations:
    """The revocations of all nodes. Every method raises BrokerUnavailable."""

    def __init__(self, servers: Servers, names: Names) -> None:
        self._servers = servers
        self._key = names.revoked()
        self._revoke = Script("revoke")
        self._revoked = Script("revoked")

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation until its time is over."""
        until_s = revocation.until_s if revocation.until_s < inf else LATEST_S
        arguments = (f"{min(until_s, LATEST_S):.3f}", _encode(revocation))
        await self._servers.evaluate(self._revoke, [self._key], arguments)

    async def all(self) -> list[Revocation]:
        """Return all revocations in force."""
        return list(readable(_decode, await self._servers.evaluate(self._revoked, [self._key], ())))
