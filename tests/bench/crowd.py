"""A whole node in this process with a crowd of WebSocket clients in another: what the fan-out is measured with.

The node has one core; its clients, and whatever else runs for the measurement, share the others.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from notifyd.node import Node, open_node
from notifyd.settings import load
from tests.bench.counterpart import Counterpart, running
from tests.certificates import Certificates
from tests.reliability.node_process import raise_descriptor_limit

CONNECT_S = 60.0
UNPACED = {"rate": 100_000, "burst": 100_000}
SETTINGS = {
    "auth.anonymous": True,
    "listen.websocket": "127.0.0.1:0",
    "listen.device": "127.0.0.1:0",
    "listen.http": "",
    "limits.handshake": "60s",
    "limits.connects": UNPACED,
    "limits.messages": UNPACED,
    "limits.connections": {"limit": 20_000, "resume": 19_000},
}


@asynccontextmanager
async def crowded_node(
    connections: int,
    topic: str,
    *,
    bare_port: int = 0,
    settings: Mapping[str, Any] | None = None,
    tls: Certificates | None = None,
) -> AsyncIterator[Node]:
    """Run a node with so many clients; where `topic` has a `{}`, the number of the client goes there.

    With `bare_port`, as many bare connections are made to it by the same process, which reads everything away.
    """
    raise_descriptor_limit()
    by_tls = {"listen.tls": {"certificate": str(tls.server), "key": str(tls.server_key)}} if tls else {}
    with own_core():
        async with open_node(load(None, {}, {**SETTINGS, **by_tls, **(settings or {})})) as node:
            assert node.websocket_address is not None
            clients = (bare_port, node.websocket_address.port, connections, topic, *(["tls"] if tls else []))
            async with bench_process("drain", *clients):
                yield node


@contextmanager
def own_core() -> Iterator[None]:
    """Keep this process on the machine's first core for the length of the block."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@asynccontextmanager
async def bench_process(module: str, *arguments: object) -> AsyncIterator[Counterpart]:
    """Run a module of this directory on the other cores; inside the block it has said `ready`."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    async with running(command, start_s=CONNECT_S, cores=_other_cores()) as process:
        assert process.first_line == b"ready", process.first_line
        yield process


def _other_cores() -> set[int]:
    """Return every core of the machine but that of the node, if there are others."""
    ours = os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1)) - ours or ours
