"""Clients that subscribe and never read again, in a process of their own.

    python -m tests.bench.stalled PORT PATH CONNECTIONS [MESSAGE ANSWER]...

They connect as those of tests.bench.field_readers, with next to no room in their kernel. Says `ready` on stdout; ends
with its stdin.
"""

import sys

from tests.bench.field_readers import connect

RECEIVE_BYTES = 4096


def main(port: int, path: str, connections: int, dialogue: list[bytes]) -> None:
    clients = connect(port, path, connections, dialogue, receive_bytes=RECEIVE_BYTES)
    print("ready", flush=True)
    sys.stdin.read()
    for client in clients:
        client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [word.encode() for word in sys.argv[4:]])
