"""Subscribers of any server that speaks text over WebSocket, in a process of their own: they count what they get.

    python -m tests.bench.field_readers PORT PATH CONNECTIONS MARKER [MESSAGE ANSWER]...

Each client sends the messages after its handshake, and each time waits until the answer is in what comes back. Says
`ready` on stdout. For each line `DELIVERIES` on stdin it reads until the marker was seen so often, and says how many
seconds that took from the first byte on.
"""

import select
import socket
import sys
import time

from tests.reliability.raw_clients import masked

READ_BYTES = 256 * 1024
UPGRADE = (
    "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def main(port: int, path: str, connections: int, marker: bytes, dialogue: list[bytes]) -> None:
    clients = connect(port, path, connections, dialogue)
    print("ready", flush=True)
    for line in sys.stdin:
        print(count(clients, marker, int(line)), flush=True)


def connect(
    port: int, path: str, connections: int, dialogue: list[bytes], *, receive_bytes: int | None = None
) -> list[socket.socket]:
    """Return so many non-blocking clients that had this dialogue: messages, each with what its answer holds.

    Their kernel keeps so many bytes for each that does not read, in place of what it thinks right.
    """
    return [_connected(port, path, dialogue, receive_bytes) for _ in range(connections)]


def _connected(port: int, path: str, dialogue: list[bytes], receive_bytes: int | None) -> socket.socket:
    client = socket.socket()
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", port))
    client.sendall(UPGRADE.format(path).encode())
    _read_until(client, b"\r\n\r\n")
    for message, answer in zip(dialogue[::2], dialogue[1::2], strict=True):
        client.sendall(masked(1, message))
        _read_until(client, answer)
    client.setblocking(False)
    return client


def _read_until(client: socket.socket, wanted: bytes) -> None:
    read = b""
    while wanted not in read:
        data = client.recv(READ_BYTES)
        if not data:
            raise SystemExit(f"the server ended the connection after {read!r}")
        read += data


def count(clients: list[socket.socket], marker: bytes, deliveries: int) -> float:
    """Read until the marker was seen so often; return how long it took. A marker cut in two is seen as well."""
    by_descriptor = {client.fileno(): client for client in clients}
    rest = dict.fromkeys(by_descriptor, b"")
    poll = select.epoll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    began_s = None
    keep = len(marker) - 1
    while deliveries > 0:
        for descriptor, _ in poll.poll():
            began_s = began_s or time.perf_counter()
            read = by_descriptor[descriptor].recv(READ_BYTES)
            if not read:
                raise SystemExit(f"the server ended a connection with {deliveries} deliveries to come")
            data = rest[descriptor] + read
            deliveries -= data.count(marker)
            rest[descriptor] = data[-keep:]
    poll.close()
    assert began_s is not None
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main(
        int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].encode(), [word.encode() for word in sys.argv[5:]]
    )
