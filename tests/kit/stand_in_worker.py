"""A process that talks to its parent as a worker does, and is no node: for tests of the parent.

Its first argument says how it behaves; see `BEHAVIOURS`. What it is told, it writes to the file named by the second;
before all else, it adds its process to the file of that name with `.pids` behind it.
"""

import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from notifyd.cli.workers.channel import Alive, Drain, Failed, Order, Probe, Reload, Report, Serving, Start, Stop

FAILURE = 3


def say(report: Report) -> None:
    content = msgspec.msgpack.encode(report)
    PARENT.sendall(len(content).to_bytes(4, "big") + content)


def hear() -> Iterator[Order]:
    with PARENT.makefile("rb") as received:
        while header := received.read(4):
            yield msgspec.msgpack.decode(received.read(int.from_bytes(header, "big")), type=Order)


def note(text: str, ending: str = "") -> None:
    with Path(sys.argv[2] + ending).open("a") as file:
        file.write(f"{text}\n")


def obey() -> int:
    """Do as it is told, and say what that is."""
    for order in hear():
        if isinstance(order, Start | Reload):
            settings = pickle.loads(order.layers).build()
            note(f"{type(order).__name__} {settings.node.name} {settings.limits.payload_bytes}")
            if isinstance(order, Start):
                say(Serving())
        elif isinstance(order, Probe):
            say(Alive())
        else:
            note(type(order).__name__)
        if isinstance(order, Drain | Stop):
            return 0
    note("the parent has gone")
    return 0


def fail() -> int:
    """End by an error that it tells."""
    next(hear())
    say(Failed("the disk of worker and parent is full"))
    return FAILURE


def crash() -> int:
    """End without a word."""
    return FAILURE


def serve_briefly() -> int:
    """Serve, and end by an error."""
    next(hear())
    say(Serving())
    return FAILURE


def end_badly() -> int:
    """Obey, and end by an error."""
    obey()
    return FAILURE


def never_serve() -> int:
    """Hear everything, come to nothing."""
    note("begun")
    for order in hear():
        if isinstance(order, Stop):
            note("Stop")
            return 0
    return 0


def be_deaf() -> int:
    """Serve, and end for nothing but a kill."""
    say(Serving())
    while True:
        signal.pause()


def ramble() -> int:
    """Say what is no message."""
    PARENT.sendall(b"Listening on port 7500\n")
    obey()
    return 0


BEHAVIOURS: dict[str, Callable[[], int]] = {
    behaviour.__name__: behaviour
    for behaviour in (obey, fail, crash, serve_briefly, end_badly, never_serve, be_deaf, ramble)
}

if __name__ == "__main__":
    note(str(os.getpid()), ".pids")
    PARENT = socket.socket(fileno=os.dup(0))
    PARENT.setblocking(True)
    sys.exit(BEHAVIOURS[sys.argv[1]]())
