"""redis-py's synchronous client, in a process of its own: the same commands, one after the other.

    python tests/bench/counterparts/redis_sync.py PORT

For each line `COMMAND TIMES` on stdin it sends the command so often; on stdout comes what one took, in microseconds of
real time.
"""

import sys
import time

from redis import Redis

PAYLOAD = b"x" * 200


def main(port: int) -> None:
    with Redis(port=port, protocol=3) as redis:
        print("ready", flush=True)
        for line in sys.stdin:
            command, times = line.split()
            print(measure_us(redis, command, int(times)), flush=True)


def measure_us(redis: Redis, command: str, times: int) -> float:
    began_s = time.perf_counter()
    for _ in range(times):
        redis.execute_command(command, "topic", PAYLOAD)
    return (time.perf_counter() - began_s) / times * 1e6


if __name__ == "__main__":
    main(int(sys.argv[1]))
