"""The counterpart of the fan-out: a bare loop of send(2), in C and in a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.bench.counterpart import Counterpart, compiled, running

CONNECT_S = 60.0


class BareSends:
    """The loop. It listens on `port`, and sends once as many connections have come as it was started for."""

    def __init__(self, loop: Counterpart, connections: int) -> None:
        self.port = int(loop.first_line)
        self._loop = loop
        self._connections = connections

    async def connected(self) -> None:
        """Wait until all connections have come."""
        with trio.fail_after(CONNECT_S):
            assert await self._loop.line() == b"ready"

    async def send(self, data: bytes) -> tuple[float, float]:
        """Send this on every connection; return the CPU time and the real time of each, in microseconds."""
        await self._loop.tell(b"%d\n%b" % (len(data), data))
        cpu_ns, real_ns = map(int, (await self._loop.line()).split())
        return cpu_ns / self._connections / 1000, real_ns / self._connections / 1000


@asynccontextmanager
async def bare_sends(connections: int) -> AsyncIterator[BareSends]:
    """Compile the loop and run it for so many connections. Raises SystemExit where there is no compiler."""
    with TemporaryDirectory() as folder:
        async with running([compiled("fanout.c", Path(folder)), connections]) as loop:
            yield BareSends(loop, connections)
