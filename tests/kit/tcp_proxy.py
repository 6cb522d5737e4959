"""A TCP proxy in front of a server, which misbehaves on demand; it runs in the test's own event loop.

async with open_proxy(redis.port) as proxy:
    ...                                  # clients connect to proxy.port
    proxy.delay_ms, proxy.jitter_ms = 20, 10
    proxy.cut()                          # every connection is reset
    proxy.stall()                        # connections stay open, bytes pile up
    proxy.resume()
    proxy.half_close("client")           # the client sees an end of stream, and may go on sending
    proxy.drop()                         # who connects is accepted, then closed
    proxy.refuse()                       # nobody can connect; connections that are open stay
    proxy.allow()                        # as in the beginning
"""

import math
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from weakref import WeakSet

import trio

from tests.kit.redis_process import free_port

CHUNK_BYTES = 65_536
PILE_CHUNKS = 64
"""What a direction holds before it stops reading, so that a sender's own buffers fill in the end."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing resets."""

Side = Literal["client", "server"]


class TcpProxy:
    """Passes bytes on between clients of `port` and a server; `delay_ms` and `jitter_ms` hold for each direction.

    `server_port` may be replaced: who connects then gets the other server.
    """

    def __init__(self, server_port: int, seed: int = 0) -> None:
        self.port = free_port()
        self.delay_ms = 0.0
        self.jitter_ms = 0.0
        self.accepted_s: list[float] = []
        self.server_port = server_port
        self._dice = random.Random(seed)
        self._listener: trio.SocketListener | None = None
        self._accepting = trio.Event()
        self._drops = False
        self._flowing = trio.Event()
        self._flowing.set()
        self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()
        self._half_closed: WeakSet[trio.SocketStream] = WeakSet()

    @property
    def connections(self) -> int:
        """How many clients are connected through it."""
        return len(self._pairs)

    @property
    def accepted(self) -> int:
        """How many connections it ever accepted; `accepted_s` says when."""
        return len(self.accepted_s)

    @property
    def url(self) -> str:
        """A standalone Redis behind it, as `broker.url` has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    # --- misbehaving --------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection, on both sides; how many."""
        pairs = list(self._pairs)
        for pair in pairs:
            _reset(*pair)
        return len(pairs)

    def half_close(self, towards: Side = "client") -> int:
        """End one direction of every connection as a peer does that has sent all; the other goes on. How many."""
        pairs = list(self._pairs)
        for client, server in pairs:
            sink = client if towards == "client" else server
            self._half_closed.add(sink)
            with suppress(OSError):
                sink.socket.shutdown(socket.SHUT_WR)
        return len(pairs)

    def stall(self) -> None:
        """Pass nothing on: bytes pile up here, then in the senders. New connections are accepted, and stall too."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def resume(self) -> None:
        """Pass on what piled up, and what comes."""
        self._flowing.set()

    def drop(self) -> None:
        """Close from now on who connects, at once; connections that are open stay."""
        self._drops = True

    def refuse(self) -> None:
        """Listen no more: who connects is refused by the kernel; connections that are open stay."""
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None
            self._accepting = trio.Event()

    def allow(self) -> None:
        """Accept and pass on again."""
        self._drops = False
        if self._listener is None:
            self._listener = _listen(self.port)
            self._accepting.set()

    # --- working ------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; every connection is closed at the end."""
        self.allow()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._accepting.wait()
                    with suppress(trio.ClosedResourceError):  # `refuse` came
                        while self._listener is not None:
                            nursery.start_soon(self._serve, await self._listener.accept())
        finally:
            self.refuse()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted_s.append(trio.current_time())
        try:
            if not self._drops:
                server = await trio.open_tcp_stream("127.0.0.1", self.server_port)
                await self._connect(client, server)
        except OSError:
            _reset(client)
        finally:
            client.socket.close()

    async def _connect(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        pair = (client, server)
        self._pairs.add(pair)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, client, server, nursery.cancel_scope)
                nursery.start_soon(self._pass_on, server, client, nursery.cancel_scope)
        finally:
            self._pairs.discard(pair)
            for stream in pair:
                stream.socket.close()

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        """One direction. An end of stream is passed on as such; a reset ends both directions."""
        pile_in, pile_out = trio.open_memory_channel[tuple[float, bytes]](PILE_CHUNKS)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, pile_out, sink)
                due_s = -math.inf
                async with pile_in:
                    while data := await source.receive_some(CHUNK_BYTES):
                        delay_ms = self.delay_ms + self._dice.uniform(0, self.jitter_ms)
                        due_s = max(due_s, trio.current_time() + delay_ms / 1000)
                        await pile_in.send((due_s, data))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            _reset(source, sink)
            both.cancel()

    async def _write(self, pile: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream) -> None:
        async with pile:
            async for due_s, data in pile:
                await trio.sleep_until(due_s)
                await self._flowing.wait()
                if sink not in self._half_closed:
                    await sink.send_all(data)
        await self._flowing.wait()
        with suppress(OSError):
            sink.socket.shutdown(socket.SHUT_WR)


def _reset(*streams: trio.SocketStream) -> None:
    for stream in streams:
        with suppress(OSError):  # it is closed
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.socket.close()


def _listen(port: int) -> trio.SocketListener:
    listening = trio.socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening._sock.bind(("127.0.0.1", port))  # without a checkpoint: an address needs no looking up
    listening.listen(128)
    return trio.SocketListener(listening)


@asynccontextmanager
async def open_proxy(server_port: int, seed: int = 0) -> AsyncIterator[TcpProxy]:
    """Run a proxy for the length of the block; its connections are closed at the end."""
    proxy = TcpProxy(server_port, seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        yield proxy
        nursery.cancel_scope.cancel()
