"""Clients that look how late each message comes, in a process of their own.

    python -m tests.bench.listen WEBSOCKET_PORT CONNECTIONS TOPIC

Says `ready` on stdout once all are subscribed; for each line on stdin it says how many messages came since the last,
and how late the median and the 99th percentile of them were, in milliseconds. A message has as `sent` of its data the
time of the machine's monotonic clock, in seconds. Ends with its stdin.
"""

import re
import selectors
import socket
import sys
import time
from statistics import quantiles

from tests.bench.drain import READ_BYTES, connected, subscribe

SENT = re.compile(rb'"sent":([0-9.]+)')


def main(port: int, connections: int, topic: str) -> None:
    clients = [connected(port, None) for _ in range(connections)]
    subscribe(clients, topic)
    print("ready", flush=True)
    late_ms: list[float] = []
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if isinstance(key.fileobj, socket.socket):
                    data = key.fileobj.recv(READ_BYTES)
                    late_ms += [(time.monotonic() - float(sent)) * 1000 for sent in SENT.findall(data)]
                elif not sys.stdin.readline():
                    return
                else:
                    percentiles = quantiles(late_ms, n=100)
                    print(len(late_ms), percentiles[49], percentiles[98], flush=True)
                    late_ms.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
