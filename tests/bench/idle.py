"""The memory of a connection that does nothing: the growth of a node's process, shared out."""

from collections.abc import Callable

import trio

from tests.bench.result import Result
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, RawSocket, RawWebSocket

WARM_UP = 100
"""Connections made and kept before the measurement: what a node allocates once is not a connection's."""

AT_ONCE = 16
SETTLE_S = 0.5

WEBSOCKET_BUDGET_KB = 22.0
DEVICE_BUDGET_KB = 9.0


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients of both kinds, each to a node of its own."""
    connections = 400 if quick else 3000
    results = []
    for name, kind, budget_kb in (
        ("websocket", RawWebSocket.connected, WEBSOCKET_BUDGET_KB),
        ("device", RawDevice.connected, DEVICE_BUDGET_KB),
    ):
        async with running_node() as node:
            figure_kb = await _kilobytes_each(node, name, kind, connections)
        line = f"idle {name} connection"
        results.append(Result(line, "KB", figure_kb, budget_kb, f"budget, {connections} clients", target=1.0))
    return results


async def _kilobytes_each(
    node: NodeProcess, listener: str, connected: Callable[..., object], connections: int
) -> float:
    clients: list[RawSocket] = []
    await _connect(node.ports[listener], connected, WARM_UP, clients)
    before_bytes = node.resident_bytes
    await _connect(node.ports[listener], connected, connections, clients)
    grown_bytes = node.resident_bytes - before_bytes
    for client in clients:
        client.close()
    return grown_bytes / connections / 1000


async def _connect(port: int, connected: Callable[..., object], count: int, clients: list[RawSocket]) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with limit:
            clients.append(await connected(port))  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    await trio.sleep(SETTLE_S)
