"""Commands of 256 tasks over one link to a real Redis, against redis-py's asyncio client and its synchronous one.

All send the same commands to the same server, in turns; the clients of redis-py run in processes of their own. What is
told is the real time one command took, ours against the better of the two: the target is a fifth of it.
"""

import sys
import time

import trio

from notifyd.broker.redis.link import Link
from tests.bench.counterpart import COUNTERPARTS, Counterpart, running
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


async def measure(*, quick: bool) -> list[Result]:
    """Publish and set from many tasks, in turns with the others."""
    times, rounds = (TASKS * 100, 3) if quick else (TASKS * 400, 7)
    results = []
    with standalone(appendonly="no") as server:
        async with (
            running_link(dial_port(server.port), deadline_s=START_S) as link,
            running([sys.executable, COUNTERPARTS / "redis_asyncio.py", server.port, TASKS]) as theirs,
            running([sys.executable, COUNTERPARTS / "redis_sync.py", server.port]) as serial,
        ):
            for command in COMMANDS:
                await _cost_us(link, command, times // 10)  # the first is told the sizes of buffers
                costs = [
                    (
                        await _cost_us(link, command, times),
                        await _told_us(theirs, command, times // SLOWER),
                        await _told_us(serial, command, times // SLOWER),
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


async def _told_us(counterpart: Counterpart, command: str, times: int) -> float:
    return float(await counterpart.ask(command, times))
