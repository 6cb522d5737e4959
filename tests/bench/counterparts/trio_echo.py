"""The counterpart of heartbeats: a bare Trio server that gives back what comes.

A task a connection, one wait and one read and one write each time: what is left is Trio and the kernel. Says its port
on stdout; ends when it is killed.
"""

import socket

import trio

from tests.reliability.node_process import raise_descriptor_limit

READ_BYTES = 64 * 1024
BACKLOG = 4096


async def echo(connected: socket.socket) -> None:
    connected.setblocking(False)
    while True:
        await trio.lowlevel.wait_readable(connected)
        data = connected.recv(READ_BYTES)
        if not data:
            break
        connected.send(data)


async def main() -> None:
    raise_descriptor_limit()
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                nursery.start_soon(echo, listener.accept()[0])


if __name__ == "__main__":
    trio.run(main)
