"""The memory of a connection that does nothing: the growth of a node's process, shared out."""

from collections.abc import Awaitable, Callable

import trio

from tests.bench.result import Result
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, RawSocket, RawWebSocket

WARM_UP = 100
"""Connections made and kept before the measurement: what a node allocates once is not a connection's."""

AT_ONCE = 16
SETTLE_S = 0.5

Connected = Callable[[int], Awaitable[RawSocket]]

KINDS: tuple[tuple[str, Connected, float], ...] = (
    ("websocket", RawWebSocket.connected, 22.0),
    ("device", RawDevice.connected, 9.0),
)
"""Listener, how a client connects, and its budget in KB."""


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients of both kinds to one node, one kind after the other; nobody leaves before the end."""
    connections = 250 if quick else 3000
    results = []
    clients: list[RawSocket] = []
    async with running_node() as node:
        for name, kind, budget_kb in KINDS:
            figure_kb = await _kilobytes_each(node, node.ports[name], kind, connections, clients)
            line = f"idle {name} connection"
            results.append(Result(line, "KB", figure_kb, budget_kb, f"budget, {connections} clients", target=1.0))
        for client in clients:
            client.close()
    return results


async def _kilobytes_each(
    node: NodeProcess, port: int, connected: Connected, connections: int, clients: list[RawSocket]
) -> float:
    await _connect(port, connected, WARM_UP, clients)
    before_bytes = node.resident_bytes
    await _connect(port, connected, connections, clients)
    return (node.resident_bytes - before_bytes) / connections / 1000


async def _connect(port: int, connected: Connected, count: int, clients: list[RawSocket]) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with limit:
            clients.append(await connected(port))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    await trio.sleep(SETTLE_S)
