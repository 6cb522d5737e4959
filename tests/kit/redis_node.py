"""Whole nodes over one real Redis, in the test's own process: real listeners, real sockets, and the hub at hand.

async with open_redis_node(redis_url, redis_prefix, "n1", policy("**", joins=True)) as node:
    ada = await caller(node, session=None)
    await ada.ask("subscribe", topic="a:b")
    assert (await ada.ask("publish", topic="a:b", data=1))["offset"] == 1
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from notifyd.node import Node, open_node
from notifyd.settings import Address, BrokerSettings, ListenSettings, NodeSettings, Settings, TopicPolicy, Url
from notifyd.telemetry import Telemetry
from tests.kit.memory_node import policy, settings
from tests.reliability.line import Line, LineLost

ANYWHERE = Address("127.0.0.1", 0)

_lines: list[tuple[Node, Line]] = []
"""All that clients have open, closed with their node."""


class Caller:
    """A client that asks; `pushes` is what came beside the answers."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.session = ""
        self.pushes: list[dict[str, Any]] = []
        self._id = 0

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask; the answer."""
        self._id += 1
        await self.line.send({"op": op, "id": self._id, **fields})
        while (message := await self.line.next()).get("id") != self._id:
            self.pushes.append(message)
        return message

    async def connect(self, **fields: Any) -> dict[str, Any]:
        """Connect, and remember the session."""
        answer = await self.ask("connect", **fields)
        self.session = answer.get("session", "")
        return answer

    async def heard(self) -> list[dict[str, Any]]:
        """What has come beside answers since the last call."""
        await self.ask("ping")
        pushes, self.pushes = self.pushes, []
        return pushes

    async def code(self) -> int | None:
        """Read until the node closes the connection; its code."""
        try:
            while True:
                self.pushes.append(await self.line.next())
        except LineLost as lost:
            return lost.code


async def opened(node: Node) -> Caller:
    """Open a device link."""
    assert node.device_address is not None
    line = await Line.open(node.device_address.port, "device")
    _lines.append((node, line))
    return Caller(line)


async def caller(node: Node, **connect: Any) -> Caller:
    """Open a device link and connect."""
    client = await opened(node)
    answer = await client.connect(**connect)
    assert answer["op"] == "connected", answer
    return client


def node_settings(url: str, prefix: str, name: str, *policies: TopicPolicy, **sections: Any) -> Settings:
    """Settings of a node on free ports; every topic is open to all and kept unless said otherwise."""
    broker = sections.pop("broker", BrokerSettings(url=Url(url), prefix=prefix))
    listen = ListenSettings(websocket=ANYWHERE, device=ANYWHERE, http=ANYWHERE)
    made = settings(topics=(*policies, policy("**")), listen=listen, broker=broker, **sections)
    return Settings(
        **{field: getattr(made, field) for field in made.__struct_fields__} | {"node": NodeSettings(name=name)}
    )


@asynccontextmanager
async def open_redis_node(
    url: str, prefix: str, name: str, *policies: TopicPolicy, **sections: Any
) -> AsyncIterator[Node]:
    """Run a node for the length of the block, and close its clients then. None may have hit the barrier."""
    async with open_node(node_settings(url, prefix, name, *policies, **sections), telemetry=Telemetry("error")) as node:
        try:
            yield node
        finally:
            for own, line in _lines:
                if own is node:
                    line.close()
            _lines[:] = [each for each in _lines if each[0] is not node]
        assert barrier_hits(node) == 0


def barrier_hits(node: Node) -> float:
    """How many bugs were stopped at a connection."""
    lines = node.telemetry.exposition().decode().splitlines()
    return sum(float(line.split(" ")[-1]) for line in lines if line.startswith("notifyd_barrier_hits_total"))
