"""The counterpart of publishing over WebSocket: a server of `websockets` that answers each message with the same words.

No decoding, no topic, no history: what is left is the transport. Says its port on stdout; ends when it is
killed. AnyIO runs it on asyncio's loop.
"""

import logging

import anyio
from websockets.asyncio.server import ServerConnection, serve

REPLY = '{"op":"published","id":7,"topic":"orders:100","epoch":"0123456789ab","offset":12345}'
CONNECTED = '{"op":"connected"}'


async def answer(connection: ServerConnection) -> None:
    await connection.recv()
    await connection.send(CONNECTED)
    async for _ in connection:
        await connection.send(REPLY)


async def main() -> None:
    logging.disable()
    async with serve(answer, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    anyio.run(main, backend="asyncio")
