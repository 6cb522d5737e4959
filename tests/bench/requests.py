"""Publishes with a reply each, of 200 clients to a node in a process of its own, over both transports.

The counterparts answer every message with the same words and do nothing else: over WebSocket a server of `websockets`,
over device links an epoll loop in C. Each server is driven in turns by a process of epoll clients with five requests
open each. What is told is the server's CPU time for one publish, against its counterpart's and against what the node is
held to, 12,000 a second on one core; and by the clock on the wall, which wants a quiet machine, the mean response.

With `node.workers = 2` over Redis the load is raised until the mean response is above 87 ms.
"""

import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.counterpart import COUNTERPARTS, Counterpart, compiled, cpu_us, running
from tests.bench.result import Result, compare
from tests.kit.redis_servers import standalone
from tests.reliability.node_process import running_node

CONNECTIONS = 200
IN_FLIGHT = 5
RATE, RESPONSE_MS = 12_000, 87.0
REPLIES = {
    "websocket": ("websocket_replies.py", "websockets, a fixed reply", 0.4),
    "device": ("device_replies.c", "C epoll loop, a fixed reply", 0.02),
}
"""The program, what it is called, and what share of our cost its own may be: it does not do most of it."""

UNLIMITED = {"LIMITS__MESSAGES": "{ rate = 1000000, burst = 1000000 }", "HEARTBEAT__INTERVAL": "1h"}
"""Nobody is refused, and nobody is pinged while it is the other server's turn."""


class Round(NamedTuple):
    """One round: the server's CPU time for a publish, publishes a second, the waits for a reply."""

    cost_us: float
    rate: float
    mean_ms: float
    p99_ms: float


async def measure(*, quick: bool) -> list[Result]:
    """Publish to the node and to the counterpart in turns, over each transport; then to two workers over Redis."""
    requests, rounds = (4_000, 3) if quick else (24_000, 7)
    results = []
    for kind in REPLIES:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(running_node(UNLIMITED))
            ours = await stack.enter_async_context(_driven(kind, node.process.pid, node.ports[kind]))
            pid, port = await stack.enter_async_context(_counterpart(kind))
            theirs = await stack.enter_async_context(_driven(kind, pid, port))
            for warm in (ours, theirs):
                await warm.publish(requests // 4)
            pairs = [(await ours.publish(requests), await theirs.publish(requests)) for _ in range(rounds)]
        results += _results(kind, pairs, quick=quick)
    if not quick:
        results += [await _over_redis(kind, requests) for kind in REPLIES]
    return results


def _results(kind: str, pairs: list[tuple[Round, Round]], *, quick: bool) -> list[Result]:
    costs = [(ours.cost_us, theirs.cost_us) for ours, theirs in pairs]
    name, load = f"publish and reply, {kind}", f"{CONNECTIONS} clients, {IN_FLIGHT} in flight each"
    _, counterpart, share = REPLIES[kind]
    at_target_us, at_rate = 1e6 / RATE, f"{RATE}/s on one core"
    mean_ms, p99_ms, each_us = (
        median(told) for told in zip(*((ours.mean_ms, ours.p99_ms, 1e6 / ours.rate) for ours, _ in pairs), strict=True)
    )
    by_the_clock = None if quick else 1.0
    return [
        compare(f"{name}, CPU", "us", counterpart, costs, target=share),
        Result(f"{name}, of a core", "us", median(ours for ours, _ in costs), at_target_us, at_rate, target=1.0),
        Result(f"{name}, each", "us", each_us, at_target_us, f"{at_rate}, {load}", target=by_the_clock),
        Result(f"{name}, mean response", "ms", mean_ms, RESPONSE_MS, load, target=by_the_clock),
        Result(f"{name}, p99 response", "ms", p99_ms, RESPONSE_MS, load),
    ]


async def _over_redis(kind: str, requests: int) -> Result:
    """Find the highest rate whose mean response is within the limit; where none is, that of the least load."""
    found: Round | None = None
    with standalone() as server:
        async with running_node({**UNLIMITED, "NODE__WORKERS": "2", "BROKER__URL": server.url}) as node:
            for in_flight in range(1, IN_FLIGHT + 1):
                async with _driven(kind, node.process.pid, node.ports[kind], in_flight) as driven:
                    await driven.publish(requests // 4)
                    told = await driven.publish(requests)
                if found is not None and told.mean_ms > RESPONSE_MS:
                    break
                found = told if found is None else max(found, told, key=lambda one: one.rate)
    assert found is not None
    against = f"{RATE}/s; {found.mean_ms:.0f} ms mean response"
    return Result(f"publish and reply, {kind}, Redis, 2 workers", "us", 1e6 / found.rate, 1e6 / RATE, against)


class _Driven:
    """A server and the process that publishes to it."""

    def __init__(self, pid: int, clients: Counterpart) -> None:
        self._pid, self._clients = pid, clients

    async def publish(self, requests: int) -> Round:
        """Have the clients publish so often in all."""
        began_us = cpu_us(self._pid)
        told = json.loads(await self._clients.ask(requests))
        spent_us = cpu_us(self._pid) - began_us
        return Round(spent_us / requests, requests / told["seconds"], told["mean_ms"], told["p99_ms"])


@asynccontextmanager
async def _driven(kind: str, pid: int, port: int, in_flight: int = IN_FLIGHT) -> AsyncIterator[_Driven]:
    async with running([sys.executable, "-m", "tests.bench.publishers", kind, port, CONNECTIONS, in_flight]) as clients:
        assert clients.first_line == b"ready", clients.first_line
        yield _Driven(pid, clients)


@asynccontextmanager
async def _counterpart(kind: str) -> AsyncIterator[tuple[int, int]]:
    """Run the counterpart; its process id and its port. Raises SystemExit where there is no C compiler for it."""
    program, _, _ = REPLIES[kind]
    with tempfile.TemporaryDirectory() as folder:
        is_script = program.endswith(".py")
        command = [sys.executable, COUNTERPARTS / program] if is_script else [compiled(program, Path(folder))]
        async with running(command) as server:
            yield server.pid, int(server.first_line)
