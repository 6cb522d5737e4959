"""Thousands of clients that do little, in a process of their own: a plain epoll loop that leaves the CPU to the node.

    python -m tests.bench.crowd

Commands come on stdin, one a line, and each is answered by one line on stdout once it is done; ends with its stdin:

    websocket PORT COUNT [TOPIC]  connect so many WebSocket clients more, and subscribe them: `connected`
    device PORT COUNT [TOPIC]     the same over device links
    bare PORT COUNT               plain TCP connections: `connected`
    beat WAVES                    PING on every device link and bare connection, and read as many PONGs, WAVES times:
                                  `beaten`
    idle                          answer what the node PINGs, until the next command: `idle`
    leave                         close all: `left`
"""

import json
import select
import socket
import sys
from collections.abc import Callable, Sequence

from tests.bench.drain import read_until
from tests.reliability.node_process import raise_descriptor_limit
from tests.reliability.raw_clients import HEARTBEAT_BYTES, UPGRADE, data_frame, heartbeat, masked

AT_ONCE = 32
"""Clients taken through their handshake side by side."""

READ_BYTES = 64 * 1024
WAIT_S = 30.0

PING, PONG = 0, 1


def main() -> None:
    raise_descriptor_limit()
    crowd = Crowd()
    for line in sys.stdin:
        command, *arguments = line.split()
        print(crowd.commands[command](*arguments), flush=True)


class Crowd:
    """All clients of the process. Heartbeats are sent by device links and bare connections only."""

    def __init__(self) -> None:
        self.commands: dict[str, Callable[..., str]] = {
            "websocket": self._connect_websockets,
            "device": self._connect_devices,
            "bare": self._connect_bare,
            "beat": self._beat,
            "leave": self._leave,
        }
        self._idle: list[socket.socket] = []
        self._beating: dict[int, socket.socket] = {}
        self._epoll = select.epoll()

    def _connect_websockets(self, port: str, count: str, *topics: str) -> str:
        requests = b"".join(masked(1, json.dumps(request).encode()) for request in _requests(topics))
        for some in _portions(int(count)):
            clients = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(some)]
            for client in clients:
                client.sendall(UPGRADE)
            for client in clients:
                read_until(client, b"\r\n\r\n")
                client.sendall(requests)
            for client in clients:
                read_until(client, _last_answer(topics))
            self._idle += clients
        return "connected"

    def _connect_devices(self, port: str, count: str, *topics: str) -> str:
        requests = b"".join(map(data_frame, _requests(topics)))
        for some in _portions(int(count)):
            clients = [socket.create_connection(("127.0.0.1", int(port))) for _ in range(some)]
            for client in clients:
                client.sendall(requests)
            for client in clients:
                read_until(client, _last_answer(topics))
                self._register(client)
        return "connected"

    def _connect_bare(self, port: str, count: str) -> str:
        for _ in range(int(count)):
            self._register(socket.create_connection(("127.0.0.1", int(port))))
        return "connected"

    def _register(self, client: socket.socket) -> None:
        client.setblocking(False)
        self._beating[client.fileno()] = client
        self._epoll.register(client, select.EPOLLIN)

    def _beat(self, waves: str) -> str:
        """Let all send at once, then wait for all answers: what the node does in between is nothing but heartbeats."""
        for wave in range(int(waves)):
            ping = heartbeat(PING, wave)
            for client in self._beating.values():
                client.send(ping)
            due_bytes = len(self._beating) * HEARTBEAT_BYTES
            while due_bytes > 0:
                ready = self._epoll.poll(WAIT_S)
                assert ready, "heartbeats are not answered"
                for descriptor, _ in ready:
                    due_bytes -= len(self._beating[descriptor].recv(READ_BYTES))
        return "beaten"

    def _leave(self) -> str:
        for client in [*self._idle, *self._beating.values()]:
            client.close()
        self._idle, self._beating = [], {}
        return "left"


def _requests(topics: Sequence[str]) -> list[dict[str, object]]:
    return [{"op": "connect", "id": 1}, *({"op": "subscribe", "id": 2, "topic": topic} for topic in topics)]


def _last_answer(topics: Sequence[str]) -> bytes:
    return b'"op":"subscribed"' if topics else b'"op":"connected"'


def _portions(count: int) -> list[int]:
    return [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]


if __name__ == "__main__":
    main()
