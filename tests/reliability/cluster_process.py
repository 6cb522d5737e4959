"""Several `notifyd serve` over one Redis (or one of them with the embedded broker), which come and go.

async with running_nodes(2, server.url) as nodes:
    nodes[1].process.kill()
    nodes.start(1)                    # with new ports: clients ask `nodes.port`
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager

import trio

from tests.reliability.line import Transport
from tests.reliability.node_process import NodeProcess, raise_descriptor_limit, started_node, wait_until

DURABLE = 'match = "durable:**", history = 100000, ttl = "1h", subscribe = "anyone", publish = "anyone"'
SETTINGS = {
    "TOPICS": f"[{{ {DURABLE} }}]",
    "LIMITS__MESSAGES": "{ rate = 100000, burst = 100000 }",
}


class NodeCluster:
    """The nodes by number; each has its own of `broker_urls`, or the last one, or the embedded broker."""

    def __init__(self, stack: ExitStack, broker_urls: Sequence[str], settings: Mapping[str, str] | None = None) -> None:
        self._stack = stack
        self._settings = {**SETTINGS, **(settings or {})}
        self._broker_urls = broker_urls
        self._nodes: list[NodeProcess] = []
        self._ports: list[dict[str, int]] = []

    def __getitem__(self, number: int) -> NodeProcess:
        return self._nodes[number]

    def __len__(self) -> int:
        return len(self._nodes)

    async def start(self, count: int) -> None:
        """Start so many, side by side."""
        started: dict[int, NodeProcess] = {}

        async def start_one(number: int) -> None:
            started[number] = await self._start(number)

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(start_one, number)
        self._nodes = [started[number] for number in range(count)]
        self._ports = [node.ports for node in self._nodes]

    async def restart(self, number: int) -> NodeProcess:
        """Start one again that has ended; its ports are others. Meanwhile its clients try in vain."""
        assert not self._nodes[number].is_running
        self._nodes[number] = await self._start(number)
        self._ports[number] = self._nodes[number].ports
        return self._nodes[number]

    async def _start(self, number: int) -> NodeProcess:
        """In a thread: what the nodes reach Redis through runs in this event loop."""
        own = {"NODE__NAME": f"n{number}"}
        if self._broker_urls:
            own["BROKER__URL"] = self._broker_urls[min(number, len(self._broker_urls) - 1)]
        starting = started_node({**own, **self._settings})
        return await trio.to_thread.run_sync(self._stack.enter_context, starting)

    def port(self, number: int, transport: Transport) -> int:
        """Where a client connects whose home is the node of this number, or of its remainder."""
        return self._ports[number % len(self._ports)][transport]

    async def kill(self, number: int) -> None:
        """End a node at once: SIGKILL."""
        node = self._nodes[number]
        node.process.kill()
        await wait_until(lambda: not node.is_running)
        node.process.wait()

    async def wait_ready(self, seconds: float = 10.0) -> None:
        """Wait until `/ready` of every node that runs says 200."""
        for node in self._nodes:
            if node.is_running:
                await wait_ready(node, seconds)

    def assert_well(self) -> None:
        """No node met a bug. That a link to Redis was lost is none."""
        for node in self._nodes:
            bugs = [line for line in node.failures if not str(line.get("error")).startswith("LinkLost: ")]
            assert bugs == [], "\n".join(map(str, bugs))


async def wait_ready(node: NodeProcess, seconds: float = 10.0) -> None:
    """Wait until a node says that it does all it promises."""
    told = ""
    with trio.move_on_after(seconds):
        while not json.loads(told := await node.get("/ready"))["ready"]:  # noqa: ASYNC110 - another process's event
            await trio.sleep(0.02)
        return
    raise AssertionError(f"not ready after {seconds:g} s: {told}")


@asynccontextmanager
async def stalled(node: NodeProcess) -> AsyncIterator[None]:
    """Let a process stand still for the length of the block."""
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.process.pid, signal.SIGCONT)


@asynccontextmanager
async def running_nodes(
    count: int = 1, *broker_urls: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[NodeCluster]:
    """Run so many nodes for the length of the block. Those that still run are stopped at its end, and end well."""
    raise_descriptor_limit()
    with ExitStack() as stack:
        nodes = NodeCluster(stack, broker_urls, settings)
        await nodes.start(count)
        yield nodes
        nodes.assert_well()
