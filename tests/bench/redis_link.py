"""Commands of 256 tasks over one link to a real Redis, against redis-py's asyncio client and its synchronous one.

All send the same commands to the same server, in turns; the clients of redis-py run in processes of their own. What is
told is the real time one command took, ours against the better of the two: the target is a fifth of it.
"""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from notifyd.broker.redis.link import Link
from tests.bench.lines import read_line
from tests.bench.result import Result, compare
from tests.kit.redis_links import dial_port, running_link
from tests.kit.redis_servers import standalone

TASKS = 256
COMMANDS = ("PUBLISH", "SET")
PAYLOAD = b"x" * 200
SLOWER = 5
"""The clients of redis-py send this part of our number of commands: a round takes as long for each."""

TARGET = 5.0
START_S = 20.0
COUNTERPARTS = Path(__file__).parent / "counterparts"


async def measure(*, quick: bool) -> list[Result]:
    """Publish and set from many tasks, in turns with the others."""
    times, rounds = (TASKS * 100, 3) if quick else (TASKS * 400, 7)
    results = []
    with standalone(appendonly="no") as server:
        async with (
            running_link(dial_port(server.port), deadline_s=START_S) as link,
            _counterpart("redis_asyncio.py", server.port, TASKS) as theirs,
            _counterpart("redis_sync.py", server.port) as serial,
        ):
            for command in COMMANDS:
                await _cost_us(link, command, times // 10)  # the first is told the sizes of buffers
                costs = [
                    (
                        await _cost_us(link, command, times),
                        await theirs.cost_us(command, times // SLOWER),
                        await serial.cost_us(command, times // SLOWER),
                    )
                    for _ in range(rounds)
                ]
                results.append(_better(command, costs))
    return results


def _better(command: str, costs: list[tuple[float, float, float]]) -> Result:
    against = f"redis-py, the better of asyncio and sync, {TASKS} tasks"
    pairs = [(ours, min(theirs, serial)) for ours, theirs, serial in costs]
    return compare(f"{command} over the link", "us", against, pairs, target=TARGET)


async def _cost_us(link: Link, command: str, times: int) -> float:
    async def work() -> None:
        for _ in range(times // TASKS):
            await link.execute(command, "topic", PAYLOAD)

    began_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(work)
    return (time.perf_counter() - began_s) / (times // TASKS * TASKS) * 1e6


class _Counterpart:
    """A process that measures when it is told to."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout

    async def read_line(self) -> bytes:
        return await read_line(self._stdout)

    async def cost_us(self, command: str, times: int) -> float:
        await self._stdin.send_all(f"{command} {times}\n".encode())
        return float(await self.read_line())


@asynccontextmanager
async def _counterpart(script: str, *arguments: int) -> AsyncIterator[_Counterpart]:
    command = [sys.executable, str(COUNTERPARTS / script), *map(str, arguments)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        counterpart = _Counterpart(process)
        with trio.fail_after(START_S):
            assert await counterpart.read_line() == b"ready"
        yield counterpart
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
