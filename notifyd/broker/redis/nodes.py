"""The nodes of a cluster, as Redis knows them: who has beaten within its time, by Redis's clock."""

from dataclasses import dataclass

import msgspec

from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers

HEARTBEAT_S = 5.0
"""Between two beats: two of three may be lost."""

NODE_TTL_S = 15.0
"""How long a node lives without a beat. After as long again its members may be removed."""

_encode = msgspec.msgpack.Encoder().encode


class NodeInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a node tells of itself: its configured name, and when it started (Unix ms)."""

    name: str
    started_ms: int


_decode = msgspec.msgpack.Decoder(NodeInfo).decode


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

    def __init__(
        self,
        servers: Servers,
        names: Names,
        node: str,
        *,
        info: NodeInfo | None = None,
        ttl_s: float = NODE_TTL_S,
    ) -> None:
        self.node = node
        self._servers = servers
        self._keys = (names.nodes(), names.node_info())
        self._info = _encode(info or NodeInfo(node, 0))
        self._ttl_ms = round(ttl_s * 1000)
        self._heartbeat = Script("heartbeat", prelude="topic")
        self._alive = Script("alive")
        self._bury = Script("bury_node")

    async def heartbeat(self) -> HeartbeatAnswer:
        """Say that this node lives, and learn of the others."""
        known, alive, expired = await self._servers.evaluate(
            self._heartbeat, self._keys, (self.node, self._ttl_ms, self._info)
        )
        return HeartbeatAnswer(known == 1, frozenset(map(_name, alive)), tuple(map(_name, expired)))

    async def alive(self) -> frozenset[str]:
        """Tell which nodes live."""
        return frozenset(map(_name, await self._servers.evaluate(self._alive, self._keys[:1], ())))

    async def remove(self, node: str) -> bool:
        """Remove a node that has been dead for twice its time; of all nodes that try, one is answered True."""
        return bool(await self._servers.evaluate(self._bury, self._keys, (node, self._ttl_ms)))

    async def leave(self) -> None:
        """Take this node out, at its end: from now on nobody counts its members."""
        await self._servers.execute_all(
            self._keys[0], [("ZREM", self._keys[0], self.node), ("HDEL", self._keys[1], self.node)]
        )

    async def infos(self) -> dict[str, NodeInfo]:
        """Tell what the nodes that live told of themselves."""
        alive = sorted(await self.alive())
        told = await client_at(self._servers, self._keys[1]).hmget(self._keys[1], alive) if alive else []
        return {node: _decode(info) for node, info in zip(alive, told, strict=True) if isinstance(info, bytes)}


def _name(node: bytes) -> str:
    """Read a node's name; one that somebody else wrote need not be text."""
    return node.decode(errors="replace")
