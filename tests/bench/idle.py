"""The memory of a connection that does nothing: the growth of a node's process, shared out."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import trio

from tests.bench.counterpart import running
from tests.bench.curve import Curve
from tests.bench.result import Result
from tests.reliability.node_process import running_node

QUIET_CLIENTS = [sys.executable, "-m", "tests.bench.quiet"]
MANY = {
    "LIMITS__CONNECTIONS": "{ limit = 40000, resume = 39000 }",
    "LIMITS__CONNECTS": "{ rate = 20000.0, burst = 20000 }",
}
"""A node's settings under which nobody waits at its door."""

WARM_UP = 100
"""Connections made and kept before the measurement: what a node allocates once is not a connection's."""

SETTLE_S = 0.5
CLIENTS, QUICK_CLIENTS = 10_000, 300
CURVE, QUICK_CURVE = (1_000, 5_000, 10_000, 15_000), (250, 500)


class Kind(NamedTuple):
    """Clients of one listener, the topics each subscribes to, and the budget of one in KB."""

    name: str
    listener: str
    topics: tuple[str, ...]
    budget_kb: float


KINDS = (
    Kind("subscribed websocket connection", "websocket", ("orders:status",), 18.0),
    Kind("subscribed device link", "device", ("orders:status",), 7.0),
    Kind("device link", "device", (), 7.0),
)


async def measure(*, quick: bool) -> list[Result]:
    """Connect clients of each kind to a node of their own."""
    clients = QUICK_CLIENTS if quick else CLIENTS
    results = []
    for kind in KINDS:
        [figure_kb] = await _kilobytes_each(kind, [clients])
        results.append(
            Result(f"idle {kind.name}", "KB", figure_kb, kind.budget_kb, f"budget, {clients} clients", target=1.0)
        )
    return results


async def curves(*, quick: bool) -> list[Curve]:
    """Measure the same again and again while more and more clients come."""
    counts = QUICK_CURVE if quick else CURVE
    lines = {}
    for kind in KINDS:
        figures_kb = await _kilobytes_each(kind, counts)
        lines[kind.name] = [[count, round(figure_kb, 2)] for count, figure_kb in zip(counts, figures_kb, strict=True)]
    return [Curve("idle", "Memory of an idle connection", "connections", "KB each", lines)]


async def _kilobytes_each(kind: Kind, counts: Sequence[int]) -> list[float]:
    """Tell what each connection takes of the node's memory, when there are so many of them; `counts` ascend."""
    figures_kb = []
    async with running_node(MANY) as node, running(QUIET_CLIENTS) as quiet:
        port, connected = node.ports[kind.listener], 0
        await quiet.ask(kind.listener, port, WARM_UP, *kind.topics)
        await trio.sleep(SETTLE_S)
        before_bytes = node.resident_bytes
        for count in counts:
            await quiet.ask(kind.listener, port, count - connected, *kind.topics)
            connected = count
            await trio.sleep(SETTLE_S)
            figures_kb.append((node.resident_bytes - before_bytes) / count / 1000)
    return figures_kb
