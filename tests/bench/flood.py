"""Publishers that send as fast as they are answered, in a process of their own.

    python -m tests.bench.flood PORT CONNECTIONS WINDOW TOPIC DATA

For each line COUNT on stdin they publish about so many messages over their device links, `WINDOW` at a time on each,
and wait for every reply; on stdout comes how many they were, and the real seconds it took. Ends with its stdin.
"""

import json
import socket
import sys
import time

from tests.bench.drain import READ_BYTES, read_until
from tests.reliability.raw_clients import data_frame

REPLY = b'"op":"published"'


def main(port: int, connections: int, window: int, topic: str, data: str) -> None:
    publishers = [_connected(port) for _ in range(connections)]
    request = data_frame({"op": "publish", "id": 1, "topic": topic, "data": json.loads(data)})
    print("ready", flush=True)
    for line in sys.stdin:
        rounds = max(1, int(line) // (connections * window))
        began_s = time.perf_counter()
        for _ in range(rounds):
            for publisher in publishers:
                publisher.sendall(request * window)
            for publisher in publishers:
                _read_replies(publisher, window)
        print(rounds * connections * window, time.perf_counter() - began_s, flush=True)


def _connected(port: int) -> socket.socket:
    publisher = socket.create_connection(("127.0.0.1", port))
    publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    publisher.sendall(data_frame({"op": "connect", "id": 1}))
    read_until(publisher, b'"op":"connected"')
    return publisher


def _read_replies(publisher: socket.socket, count: int) -> None:
    """Read so many replies; with all of them sent, the last byte is the end of one."""
    read = b""
    while count:
        data = publisher.recv(READ_BYTES)
        if not data:
            raise SystemExit("the node ended the connection")
        read += data
        replies = read.count(REPLY)
        count -= replies
        if replies:
            read = read[read.rindex(REPLY) + len(REPLY) :]
        if b'"op":"error"' in read:
            raise SystemExit(f"refused: {read!r}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
