"""Clients that publish and wait for the reply, in a process of their own: a plain epoll loop over raw sockets.

    python -m tests.bench.publishers KIND PORT CONNECTIONS IN_FLIGHT

KIND is `websocket` (JSON) or `device` (MessagePack). For each number on its stdin it publishes as often in all, with
IN_FLIGHT requests open at each connection, and says on stdout, as one line of JSON, how long that took and how long
each waited for its reply. Ends with its stdin.
"""

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean, quantiles

from protocol.codec import HEADER_BYTES, FrameType, encode_frame
from protocol.framing import Encoding
from protocol.messages import Connect, Publish, encode
from tests.bench.drain import read_until
from tests.reliability.raw_clients import UPGRADE
from tests.unit.transport.client_frames import TEXT, frame

DATA = {"order": 4711, "state": "paid", "items": [{"sku": "A-100", "count": 2}, {"sku": "B-7", "count": 1}], "n": 1.5}
READ_BYTES = 256 * 1024
ACCEPTED = b"published"

Sizes = Callable[[bytes, int], int]
"""Tells the size of the frame that begins at a place; 0 while its header is not all there."""


def main(kind: str, port: int, connections: int, in_flight: int) -> None:
    publishers = [Publisher(kind, port, number) for number in range(connections)]
    with select.epoll() as poll:
        by_descriptor = {publisher.socket.fileno(): publisher for publisher in publishers}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(publish(poll, by_descriptor, int(line), in_flight)), flush=True)


def publish(poll: select.epoll, publishers: dict[int, "Publisher"], requests: int, in_flight: int) -> dict[str, float]:
    """Publish so often in all; return the seconds that took, and the milliseconds that each took."""
    waited_s: list[float] = []
    began_s = time.perf_counter()
    left = requests
    for publisher in publishers.values():
        left -= publisher.send(min(left, in_flight))
    while len(waited_s) < requests:
        for descriptor, _ in poll.poll():
            publisher = publishers[descriptor]
            answered = publisher.receive(waited_s)
            left -= publisher.send(min(left, answered))
    percentiles = quantiles(waited_s, n=100)
    return {
        "seconds": time.perf_counter() - began_s,
        "mean_ms": fmean(waited_s) * 1e3,
        "p50_ms": percentiles[49] * 1e3,
        "p99_ms": percentiles[98] * 1e3,
    }


class Publisher:
    """One connected client on a topic of its own. Every reply must say that the message was accepted."""

    def __init__(self, kind: str, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent: deque[tuple[float, int]] = deque()
        self._rest = b""
        wrap, encoding, self._size = KINDS[kind]
        if kind == "websocket":
            self.socket.sendall(UPGRADE)
            read_until(self.socket, b"\r\n\r\n")
        self.socket.sendall(wrap(encode(Connect(id=1), encoding)))
        read_until(self.socket, b"connected")
        request = Publish(id=7, topic=f"orders:{number}", data=DATA)
        self._request = wrap(encode(request, encoding))

    def send(self, requests: int) -> int:
        """Send so many requests at once; return how many."""
        if requests:
            self._sent.append((time.perf_counter(), requests))
            self.socket.sendall(self._request * requests)
        return requests

    def receive(self, waited_s: list[float]) -> int:
        """Read what is there; return how many requests it answered, and append how long each had waited."""
        data = self._rest + self.socket.recv(READ_BYTES)
        at = answered = 0
        while (size := self._size(data, at)) and at + size <= len(data):
            at += size
            answered += 1
        self._rest = data[at:]
        assert answered == data.count(ACCEPTED, 0, at), data
        now_s, left = time.perf_counter(), answered
        while left:
            sent_s, requests = self._sent.popleft()
            if requests > left:
                self._sent.appendleft((sent_s, requests - left))
                requests = left
            waited_s += [now_s - sent_s] * requests
            left -= requests
        return answered


def websocket_size(data: bytes, at: int) -> int:
    if len(data) - at < 4:
        return 0
    length = data[at + 1]
    return 2 + length if length < 126 else 4 + int.from_bytes(data[at + 2 : at + 4], "big")


def device_size(data: bytes, at: int) -> int:
    return HEADER_BYTES + int.from_bytes(data[at + 13 : at + 16], "big") if len(data) - at >= HEADER_BYTES else 0


KINDS: dict[str, tuple[Callable[[bytes], bytes], Encoding, Sizes]] = {
    "websocket": (lambda payload: frame(TEXT, payload), Encoding.JSON, websocket_size),
    "device": (lambda payload: encode_frame(FrameType.MSGPACK, payload), Encoding.MSGPACK, device_size),
}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
