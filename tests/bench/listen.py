"""Clients of any server that look how late each message comes, in a process of their own.

    python -m tests.bench.listen PORT PATH CONNECTIONS [MESSAGE ANSWER]...

They connect as those of tests.bench.field_readers, and say `ready` on stdout. For each line on stdin this says how many
messages came since the last, and how late the median and the 99th percentile of them were, in milliseconds. A message
has as `sent` of its data the time of the machine's monotonic clock, in seconds. Ends with its stdin.
"""

import re
import select
import sys
import time
from statistics import quantiles

from tests.bench.field_readers import READ_BYTES, connect

SENT = re.compile(rb'"sent":([0-9.]+)')


def main(port: int, path: str, connections: int, dialogue: list[bytes]) -> None:
    clients = {client.fileno(): client for client in connect(port, path, connections, dialogue)}
    print("ready", flush=True)
    arrivals: list[tuple[float, bytes]] = []
    poll = select.epoll()
    for descriptor in [*clients, sys.stdin.fileno()]:
        poll.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in clients:  # read out later: to look into each now would be time that the next one waits
                arrivals.append((time.monotonic(), clients[descriptor].recv(READ_BYTES)))
            elif not sys.stdin.readline():
                return
            else:
                late_ms = [(at - float(sent)) * 1000 for at, data in arrivals for sent in SENT.findall(data)]
                percentiles = quantiles(late_ms or [0.0, 0.0], n=100)
                print(len(late_ms), percentiles[49], percentiles[98], flush=True)
                arrivals.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [word.encode() for word in sys.argv[4:]])
