"""What the parent and a worker say to each other, on a socket pair whose end of file says that the other is gone.

Each message is its length (4 bytes, big-endian) and as much MessagePack. The worker's end is its standard input.
"""

import os
import socket
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import msgspec
import trio

from notifyd.errors import NotifydError
from notifyd.telemetry.snapshot import Snapshot

MAX_MESSAGE_BYTES = 64 * 2**20
"""Far above any configuration: what announces more is no message."""

LENGTH_BYTES = 4
STRANGER = "the process on the other side is not of this version of notifyd"
STDIN = 0


class Start(msgspec.Struct, tag=True, frozen=True):
    """The first order: be this worker. `layers` are pickled, and build its share of the settings."""

    number: int
    layers: bytes


class Reload(msgspec.Struct, tag=True, frozen=True):
    """Let these layers (pickled) hold from now on, as far as they can while the worker runs."""

    layers: bytes


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Take no new clients, let the connected go over the drain window, and end."""


class Probe(msgspec.Struct, tag=True, frozen=True):
    """Say that you are alive."""


class Stop(msgspec.Struct, tag=True, frozen=True):
    """End at once."""


class TellFigures(msgspec.Struct, tag=True, frozen=True):
    """Tell your figures."""


class AllFigures(msgspec.Struct, tag=True, frozen=True):
    """The figures of all workers: the answer to every `AskFigures` since the last one."""

    figures: Snapshot


class Serving(msgspec.Struct, tag=True, frozen=True):
    """Every listener of the worker accepts."""


class Alive(msgspec.Struct, tag=True, frozen=True):
    """The answer to `Probe`: the worker's loop turns."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker ends, and this is why, in a line for a person."""

    problem: str


class AskFigures(msgspec.Struct, tag=True, frozen=True):
    """Somebody asked this worker for the figures of the node."""


class Figures(msgspec.Struct, tag=True, frozen=True):
    """The worker's own figures."""

    figures: Snapshot


Order = Start | Reload | Probe | Drain | Stop | TellFigures | AllFigures
Report = Serving | Alive | Failed | AskFigures | Figures
Incoming = TypeVar("Incoming")


class ChannelBroken(NotifydError):
    """What arrives are no messages."""


class Channel(Generic[Incoming]):
    """One end. Iterating yields what the other says, `kind` in type, until it is gone.

    One task receives; any may send. Iterating raises ChannelBroken.
    """

    def __init__(self, stream: trio.abc.Stream, kind: Any) -> None:
        self._stream = stream
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(kind)
        self._received = bytearray()
        self._turn = trio.Lock()

    async def send(self, message: Order | Report) -> None:
        """Say something. It is lost where the other has gone.

        Cancelled, it may have been cut short, and the channel is of no more use.
        """
        content = msgspec.msgpack.encode(message)
        async with self._turn:
            await self._send(content)

    async def _send(self, content: bytes) -> None:
        try:
            await self._stream.send_all(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def __aiter__(self) -> AsyncIterator[Incoming]:
        while (message := await self.receive()) is not None:
            yield message

    async def receive(self) -> Incoming | None:
        """Return the next message, None when the other is gone. Cancelled, nothing is lost."""
        if not (header := await self._peek(LENGTH_BYTES)):
            return None
        size = int.from_bytes(header, "big")
        if size > MAX_MESSAGE_BYTES:
            raise ChannelBroken(f"a message of {size} bytes is announced: {STRANGER}")
        if not (frame := await self._peek(LENGTH_BYTES + size)):
            return None
        del self._received[: len(frame)]
        try:
            return self._decoder.decode(frame[LENGTH_BYTES:])
        except msgspec.MsgspecError as error:
            raise ChannelBroken(f"{error}: {STRANGER}") from None

    async def _peek(self, size: int) -> bytes:
        """Return so many bytes without taking them; none when the other was gone before."""
        while len(self._received) < size:
            try:
                received = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                received = b""
            if not received:
                return b""
            self._received += received
        return bytes(self._received[:size])


def parents_stream() -> trio.SocketStream:
    """Return a worker's end of the channel to its parent. Raises NotifydError where no parent started this process."""
    try:
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(STDIN))))
    except (OSError, ValueError):
        raise NotifydError("--worker is not for people: set node.workers, and notifyd starts them itself") from None
