"""redis-py's asyncio client, in a process of its own: the same commands from as many tasks.

    python tests/bench/counterparts/redis_asyncio.py PORT TASKS

For each line `COMMAND TIMES` on stdin the tasks send the command so often in all; on stdout comes what one took, in
microseconds of real time. AnyIO runs it on asyncio's loop.
"""

import sys
import time

import anyio
from redis.asyncio import Redis

PAYLOAD = b"x" * 200


async def main(port: int, tasks: int) -> None:
    async with Redis(port=port, protocol=3, max_connections=tasks) as redis:  # its default of 100 raises
        print("ready", flush=True)
        for line in sys.stdin:
            command, times = line.split()
            print(await measure_us(redis, command, tasks, int(times)), flush=True)


async def measure_us(redis: Redis, command: str, tasks: int, times: int) -> float:
    async def work() -> None:
        for _ in range(times // tasks):
            await redis.execute_command(command, "topic", PAYLOAD)

    began_s = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(work)
    return (time.perf_counter() - began_s) / (times // tasks * tasks) * 1e6


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), int(sys.argv[2]), backend="asyncio")
