"""A node of our own to load: `notifyd serve` on free ports of loopback, with limits that are not in the way.

It is a process like an operator's, so that what it uses can be told apart from what the load uses.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import trio

from notifyd.bench.load import Load
from notifyd.errors import NotifydError

START_S = 30.0
NODE_STOP_S = 5.0
KEPT_LINES = 5

_PREFIX = "NOTIFYD_"
DEFAULTS = {
    "auth.anonymous": "true",
    "limits.messages": "{ rate = 1e9, burst = 1e9 }",
    "limits.connections": "{ limit = 1000000 }",
    "limits.connects": "{ rate = 1e6, burst = 1e6 }",
    "log.level": "info",
    "log.format": "json",
    "node.drain": "0s",
}
"""What a load needs of a node; `Load.settings` come on top."""

_PROGRAM = """
import ctypes, signal
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: it does not outlive who started it
from notifyd.cli import main
main()
"""
_PORTS = ("--websocket", "127.0.0.1:0", "--device", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config", os.devnull)


class OwnNode(NamedTuple):
    """A node that runs: its process, and where it listens."""

    pid: int
    websocket: str
    device: str
    http: str


@asynccontextmanager
async def open_own_node(load: Load) -> AsyncIterator[OwnNode]:
    """Run a node for a load; it ends with the block, cancelled or not.

    Raises NotifydError with what the node says when it does not start.
    """
    # Trio would start it from a thread, and PR_SET_PDEATHSIG is about the thread.
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", _PROGRAM, "serve", *_PORTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=node_environment(load, os.environ),
        start_new_session=True,
    )
    assert process.stderr is not None
    descriptor = os.dup(process.stderr.fileno())
    process.stderr.close()
    try:
        async with trio.lowlevel.FdStream(descriptor) as log, trio.open_nursery() as nursery:
            node: OwnNode | None = None
            with trio.move_on_after(START_S):
                node = await nursery.start(_follow, process.pid, log)
            if node is None:
                raise NotifydError(f"notifyd bench: its own node does not come to serve within {START_S:g} s")
            yield node
            nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(NODE_STOP_S):
            while process.poll() is None:  # noqa: ASYNC110 - the end of a process is no event
                await trio.sleep(0.01)
        if process.poll() is None:
            process.kill()
            process.wait()


def node_environment(load: Load, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that configures the node: ours without what configures another node."""
    settings = {**DEFAULTS, **({} if load.broker is None else {"broker.url": load.broker}), **load.settings}
    kept = {name: value for name, value in environ.items() if not name.startswith(_PREFIX)}
    return kept | {_PREFIX + key.replace(".", "__").upper(): value for key, value in settings.items()}


async def _follow(
    pid: int, log: trio.abc.ReceiveStream, *, task_status: trio.TaskStatus[OwnNode] = trio.TASK_STATUS_IGNORED
) -> None:
    """Read the node's log, so that it never waits for us."""
    unread = b""
    said: deque[str] = deque(maxlen=KEPT_LINES)
    async for data in log:
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            said.append(line.decode(errors="replace"))
            if b'"serving"' in line and (places := msgspec.json.decode(line)).get("event") == "serving":
                task_status.started(OwnNode(pid, *(places[name] for name in OwnNode._fields[1:])))
    raise NotifydError(f"notifyd bench: its own node ended: {said[-1] if said else 'without a word'}")
