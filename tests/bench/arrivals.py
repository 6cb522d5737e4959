"""WebSocket clients that arrive, in a process of their own so that the node has its core: raw sockets and one epoll.

    python -m tests.bench.arrivals

Says `ready`; then each line of stdin is a job, each line of stdout its answer. The clients of a job connect, so many at
a time, say what they have to say once their upgrade is answered, and stay until the next job begins or stdin ends. A
client has arrived when it has read all that it waits for.
"""

import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from tests.bench.counterpart import Counterpart, cpu_us, running
from tests.reliability.node_process import raise_descriptor_limit
from tests.reliability.raw_clients import masked

REQUEST = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
READ_BYTES = 64 * 1024
MOST_S = 60.0
"""When nothing has come for so long, a job has failed."""

AT_ONCE = 64
IDLE_S = 0.2
IDLE_SHARE = 0.05
"""A process that takes less of a core than this is through with what it had to do."""


class Arrival(msgspec.Struct):
    """One client: its request, the messages it sends once that is answered, and how often each text has to come."""

    request: str
    says: list[str] = []
    waits_for: dict[str, int] = {}


class Job(msgspec.Struct):
    """Clients of one port, `at_once` of them on their way at the same time."""

    port: int
    at_once: int
    arrivals: Sequence[Arrival]


class Arrived(msgspec.Struct):
    """What a job took: by the clock, and of this process's CPU, which shows whether the load was the bottleneck."""

    seconds: float
    load_cpu_s: float


class Load:
    """The process that the clients are in."""

    def __init__(self, process: Counterpart) -> None:
        self._process = process

    async def arrive(self, port: int, arrivals: Sequence[Arrival]) -> Arrived:
        """Let those go that are there, and these arrive; none, to let go only."""
        job = Job(port, AT_ONCE, arrivals)
        return msgspec.json.decode(await self._process.ask(msgspec.json.encode(job).decode()), type=Arrived)

    async def cost_us(self, pid: int, port: int, arrivals: Sequence[Arrival]) -> float:
        """Return the CPU time that one of these arrivals takes of the process `pid`, which serves the port."""
        spent_us, _ = await self.costs_us(pid, port, arrivals)
        return spent_us

    async def costs_us(self, pid: int, port: int, arrivals: Sequence[Arrival]) -> tuple[float, float]:
        """Return that CPU time, and what one of them takes by the clock."""
        await self.arrive(port, ())
        await wait_idle(pid)
        began_us = cpu_us(pid)
        arrived = await self.arrive(port, arrivals)
        return (cpu_us(pid) - began_us) / len(arrivals), arrived.seconds / len(arrivals) * 1e6


@asynccontextmanager
async def running_load() -> AsyncIterator[Load]:
    """Run the clients' process for the length of the block."""
    async with running([sys.executable, "-m", "tests.bench.arrivals"]) as process:
        assert process.first_line == b"ready", process.first_line
        yield Load(process)


async def wait_idle(pid: int) -> None:
    """Wait until a process has done what it had to do."""
    while True:
        began_us = cpu_us(pid)
        await trio.sleep(IDLE_S)
        if cpu_us(pid) - began_us < IDLE_SHARE * IDLE_S * 1e6:
            return


# --- the process ------------------------------------------------------------------------------------------------------


class _Client:
    """A client on its way."""

    def __init__(self, port: int, arrival: Arrival) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(arrival.request.encode() + b"\r\n")
        self._says = b"".join(masked(1, text.encode()) for text in arrival.says)
        self._waits_for = {text.encode(): count for text, count in arrival.waits_for.items()}
        self._read = b""
        self._upgraded = False

    def receive(self) -> bool:
        """Read what has come, and go on; True once this client has all it waits for."""
        data = self.socket.recv(READ_BYTES)
        self._read += data
        if not data or not self._read.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"a client ended with {self._read!r}")
        if not self._upgraded:
            self._upgraded = b"\r\n\r\n" in self._read
            if self._upgraded and self._says:
                self.socket.sendall(self._says)
        return self._upgraded and all(self._read.count(text) >= count for text, count in self._waits_for.items())


def arrive(job: Job) -> Iterator[socket.socket]:
    """Let all clients of a job arrive; yield the socket of each when it has."""
    coming = iter(job.arrivals)
    under_way: dict[int, _Client] = {}
    with select.epoll() as events:

        def begin() -> None:
            for arrival in coming:
                client = _Client(job.port, arrival)
                under_way[client.socket.fileno()] = client
                events.register(client.socket, select.EPOLLIN)
                return

        for _ in range(job.at_once):
            begin()
        while under_way:
            ready = events.poll(MOST_S)
            if not ready:
                raise SystemExit(f"{len(under_way)} clients wait in vain")
            for descriptor, _ in ready:
                if under_way[descriptor].receive():
                    events.unregister(descriptor)
                    yield under_way.pop(descriptor).socket
                    begin()


def main() -> None:
    raise_descriptor_limit()
    print("ready", flush=True)
    stay: list[socket.socket] = []
    for line in sys.stdin.buffer:
        for client in stay:
            client.close()
        job = msgspec.json.decode(line, type=Job)
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        stay = list(arrive(job))
        arrived = Arrived(time.monotonic() - began_s, time.process_time() - began_cpu_s)
        print(msgspec.json.encode(arrived).decode(), flush=True)


if __name__ == "__main__":
    main()
