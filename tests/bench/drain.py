"""Clients of the fan-out, in a process of their own: they connect, and then read and throw away.

    python -m tests.bench.drain BARE_PORT WEBSOCKET_PORT CONNECTIONS TOPIC [tls]

First come the bare TCP connections, unless that port is 0, then as many WebSocket clients that subscribe to the topic;
where it has a `{}`, the number of the client goes there. Says `ready` on stdout; ends with its stdin.
"""

import json
import selectors
import socket
import ssl
import sys
from collections.abc import Sequence

from tests.reliability.raw_clients import UPGRADE, masked

READ_BYTES = 256 * 1024


def main(bare_port: int, websocket_port: int, connections: int, topic: str, *, tls: bool) -> None:
    bare = [socket.create_connection(("127.0.0.1", bare_port)) for _ in range(connections if bare_port else 0)]
    context = any_certificate() if tls else None
    clients = [connected(websocket_port, context) for _ in range(connections)]
    subscribe(clients, topic)
    print("ready", flush=True)
    drain([*bare, *(socket.socket(fileno=client.detach()) for client in clients)])


def any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def connected(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    return tls.wrap_socket(client) if tls else client


def subscribe(clients: Sequence[socket.socket], topic: str) -> None:
    """Take all clients through their handshake side by side."""
    for client in clients:
        client.sendall(UPGRADE)
    for number, client in enumerate(clients):
        read_until(client, b"\r\n\r\n")
        requests = {"op": "connect", "id": 1}, {"op": "subscribe", "id": 2, "topic": topic.format(number)}
        client.sendall(b"".join(masked(1, json.dumps(request).encode()) for request in requests))
    for client in clients:
        read_until(client, b'"op":"subscribed"')


def read_until(client: socket.socket, wanted: bytes) -> None:
    read = b""
    while wanted not in read:
        data = client.recv(READ_BYTES)
        read += data
        if not data or b'"op":"error"' in read:
            raise SystemExit(f"the node refuses: {read!r}")


def drain(sockets: Sequence[socket.socket]) -> None:
    with selectors.DefaultSelector() as selector:
        for connected in sockets:
            selector.register(connected, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.recv(READ_BYTES)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], tls=sys.argv[5:] == ["tls"])
