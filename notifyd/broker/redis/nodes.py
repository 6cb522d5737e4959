"""The nodes of a cluster, as Redis knows them: who has beaten within its time, by Redis's clock."""

from dataclasses import dataclass

from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers

HEARTBEAT_S = 5.0
"""Between two beats: two of three may be lost."""

NODE_TTL_S = 15.0
"""How long a node lives without a beat. After as long again its members may be removed."""


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What a heartbeat was answered.

    `known` says that the node was alive until now; else all that it had may be gone. `expired` are those that have been
    dead for so long that their members may be removed.
    """

    known: bool
    alive: frozenset[str]
    expired: tuple[str, ...]


class RedisNodes:
    """The registry of nodes. `node` is this one's id, which no other process ever has.

    Every method raises BrokerUnavailable. `ttl_s` has to be the same on all nodes.
    """

    def __init__(self, servers: Servers, names: Names, node: str, *, ttl_s: float = NODE_TTL_S) -> None:
        self.node = node
        self._servers = servers
        self._key = names.nodes()
        self._ttl_ms = round(ttl_s * 1000)
        self._heartbeat = Script("heartbeat", preludes=("time", "topic"))
        self._alive = Script("alive", preludes=("time",))
        self._bury = Script("bury_node", preludes=("time",))

    async def heartbeat(self) -> HeartbeatAnswer:
        """Say that this node lives, and learn of the others."""
        arguments = (self.node, self._ttl_ms)
        known, alive, expired = await self._servers.evaluate(self._heartbeat, [self._key], arguments)
        return HeartbeatAnswer(known == 1, frozenset(map(_name, alive)), tuple(map(_name, expired)))

    async def alive(self) -> frozenset[str]:
        """Tell which nodes live."""
        return frozenset(map(_name, await self._servers.evaluate(self._alive, [self._key], ())))

    async def remove(self, node: str) -> bool:
        """Remove a node that has been dead for twice its time; of all nodes that try, one is answered True."""
        return bool(await self._servers.evaluate(self._bury, [self._key], (node, self._ttl_ms)))

    async def leave(self) -> None:
        """Take this node out, at its end: from now on nobody counts its members."""
        await client_at(self._servers, self._key).zrem(self._key, self.node)


def _name(node: bytes) -> str:
    """Read a node's name; one that somebody else wrote need not be text."""
    return node.decode(errors="replace")
