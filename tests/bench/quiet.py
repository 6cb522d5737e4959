"""Thousands of clients that do little, in a process of their own: a plain epoll loop that leaves the CPU to the node.

    python -m tests.bench.quiet

Says `ready`. Commands come on stdin, one a line, and each is answered by a line once it is done; ends with its stdin:

    websocket PORT COUNT [TOPIC]  connect so many WebSocket clients more, and subscribe them: `connected`
    device PORT COUNT [TOPIC]     the same over device links
    bare PORT COUNT               the same without a word: plain TCP connections
    beat WAVES                    let all PING at once and wait for as many PONGs, WAVES times: `beaten`
    pace INTERVAL SECONDS         let each PING once an interval, one after the other, and answer the node's: `paced N`
    leave                         close all: `left`
"""

import json
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tests.bench.drain import read_until
from tests.reliability.node_process import raise_descriptor_limit
from tests.reliability.raw_clients import HEARTBEAT_BYTES, UPGRADE, data_frame, heartbeat, masked

AT_ONCE = 32
"""Clients taken through their handshake side by side."""

READ_BYTES = 64 * 1024
WAIT_S = 30.0
TICK_S = 0.01
"""Who beats at a pace sends what is due so often: clients that do not know of each other are nearly as well spread."""

PING, PONG = 0, 1
BINARY = 2
FRAME_BYTES = 2
"""What a server's short WebSocket frame has before its payload."""


class Client:
    """A connection that beats; `head_bytes` is what its transport puts before each heartbeat of the node."""

    __slots__ = ("head_bytes", "socket")

    def __init__(self, connected: socket.socket, head_bytes: int = 0) -> None:
        self.socket = connected
        self.head_bytes = head_bytes

    def send(self, kind: int, timestamp: int) -> None:
        """Send a heartbeat: it is so small that it leaves whole."""
        data = heartbeat(kind, timestamp)
        self.socket.send(masked(BINARY, data) if self.head_bytes else data)

    def receive(self) -> list[bytes]:
        """Take the heartbeats that have come."""
        data, size = self.socket.recv(READ_BYTES), self.head_bytes + HEARTBEAT_BYTES
        assert data, "the node ended a connection"
        assert len(data) % size == 0, f"{data!r} is no row of heartbeats"
        return [data[start + self.head_bytes : start + size] for start in range(0, len(data), size)]


class QuietClients:
    """All clients of the process."""

    def __init__(self) -> None:
        self.commands: dict[str, Callable[..., str]] = {
            "websocket": self._connect_websockets,
            "device": self._connect_devices,
            "bare": self._connect_bare,
            "beat": self._beat,
            "pace": self._pace,
            "leave": self._leave,
        }
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()

    def _connect_websockets(self, port: str, count: str, *topics: str) -> str:
        requests = b"".join(masked(1, json.dumps(request).encode()) for request in _requests(topics))
        for clients in _connected(port, count):
            for client in clients:
                client.sendall(UPGRADE)
            for client in clients:
                read_until(client, b"\r\n\r\n")
                client.sendall(requests)
            for client in clients:
                read_until(client, _last_answer(topics))
                self._register(Client(client, FRAME_BYTES))
        return "connected"

    def _connect_devices(self, port: str, count: str, *topics: str) -> str:
        requests = b"".join(map(data_frame, _requests(topics)))
        for clients in _connected(port, count):
            for client in clients:
                client.sendall(requests)
            for client in clients:
                read_until(client, _last_answer(topics))
                self._register(Client(client))
        return "connected"

    def _connect_bare(self, port: str, count: str) -> str:
        for clients in _connected(port, count):
            for client in clients:
                self._register(Client(client))
        return "connected"

    def _register(self, client: Client) -> None:
        client.socket.setblocking(False)
        self._clients[client.socket.fileno()] = client
        self._epoll.register(client.socket, select.EPOLLIN)

    def _beat(self, waves: str) -> str:
        """Let all send, then take all answers: between the two the node has nothing to do but heartbeats."""
        for wave in range(int(waves)):
            for client in self._clients.values():
                client.send(PING, wave)
            due = len(self._clients)
            while due > 0:
                ready = self._epoll.poll(WAIT_S)
                assert ready, "heartbeats are not answered"
                due -= sum(len(self._clients[descriptor].receive()) for descriptor, _ in ready)
        return "beaten"

    def _pace(self, interval: str, seconds: str) -> str:
        clients, sent, received = list(self._clients.values()), 0, 0
        began_s = time.monotonic()
        while (passed_s := time.monotonic() - began_s) < float(seconds):
            due = int(passed_s / float(interval) * len(clients))
            for number in range(sent, due):
                clients[number % len(clients)].send(PING, number)
            sent = due
            received += self._answer()
            time.sleep(TICK_S)
        return f"paced {received}"

    def _answer(self) -> int:
        """Take what has come, and answer each PING; return how many heartbeats there were."""
        received = 0
        for descriptor, _ in self._epoll.poll(0):
            client = self._clients[descriptor]
            for beat in client.receive():
                received += 1
                if beat[4] == PING:
                    client.send(PONG, int.from_bytes(beat[5:13], "big"))
        return received

    def _leave(self) -> str:
        for client in self._clients.values():
            client.socket.close()
        self._clients = {}
        return "left"


def main() -> None:
    raise_descriptor_limit()
    clients = QuietClients()
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        print(clients.commands[command](*arguments), flush=True)


def _connected(port: str, count: str) -> Iterator[list[socket.socket]]:
    """Connect so many, some at a time."""
    for start in range(0, int(count), AT_ONCE):
        some = min(AT_ONCE, int(count) - start)
        yield [socket.create_connection(("127.0.0.1", int(port))) for _ in range(some)]


def _requests(topics: Sequence[str]) -> list[dict[str, object]]:
    return [{"op": "connect", "id": 1}, *({"op": "subscribe", "id": 2, "topic": topic} for topic in topics)]


def _last_answer(topics: Sequence[str]) -> bytes:
    return b'"op":"subscribed"' if topics else b'"op":"connected"'


if __name__ == "__main__":
    main()
