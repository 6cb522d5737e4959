"""The counterpart of the fan-out: a server of `websockets` that broadcasts.

Says its port on stdout. For each line `MESSAGES BYTES 0` on stdin it sends so many messages of so many bytes to
every client, one after the other as fast as the slowest takes them, and says how many on stdout. Ends when it is
killed. AnyIO runs it on asyncio's loop.
"""

import json
import logging
import sys

import anyio
import anyio.lowlevel
from websockets.asyncio.server import ServerConnection, broadcast, serve

HELD_BYTES = 1024 * 1024
"""What may wait at one client before the next message: `broadcast` itself never waits."""


async def stay(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def main() -> None:
    logging.disable()
    async with serve(stay, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            messages, size_bytes, _ = map(int, line.split())
            await publish(list(server.connections), messages, json.dumps({"pub": "x" * size_bytes}))
            print(messages, flush=True)


async def publish(connections: list[ServerConnection], messages: int, text: str) -> None:
    for _ in range(messages):
        broadcast(connections, text)
        await anyio.lowlevel.checkpoint()
        for connection in connections:
            if connection.transport.get_write_buffer_size() > HELD_BYTES:
                await connection.drain()


if __name__ == "__main__":
    anyio.run(main, backend="asyncio")
