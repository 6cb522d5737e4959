"""The Centrifuge library (Go) as a counterpart, built by whoever measures against it; it keeps history as notifyd does.

Its source is in counterparts/centrifuge. It publishes from inside its own process, and has one core.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.bench.counterpart import COUNTERPARTS, Counterpart, running

BUILD_S = 300.0
PATH = "/connection/websocket"
DIALOGUE = (
    *('{"id":1,"connect":{}}', '"connect"'),
    *('{"id":2,"subscribe":{"channel":"orders:status"}}', '"subscribe"'),
)
"""What a client sends after its handshake, and what is in the answers."""


def can_be_built() -> bool:
    """Whether there is a Go compiler; the modules it needs are fetched when they are not there."""
    return shutil.which("go") is not None


@asynccontextmanager
async def running_centrifuge() -> AsyncIterator[Counterpart]:
    """Build and run it; its first line is its port. To `ask` are messages, bytes, and how many a second (0: all)."""
    with TemporaryDirectory() as folder:
        program = Path(folder) / "centrifuge"
        with trio.fail_after(BUILD_S):
            command = ["go", "build", "-o", str(program), "."]
            await trio.run_process(command, cwd=COUNTERPARTS / "centrifuge", stderr=subprocess.STDOUT)
        async with running([program], GOMAXPROCS="1") as server:
            yield server
