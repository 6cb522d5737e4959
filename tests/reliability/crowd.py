"""A crowd of strangers, each holding one spoiled conversation, as many as go in a given time."""

import contextlib
import itertools
import socket
import struct
from collections.abc import Mapping

import trio

from tests.reliability.conversations import Listen, Pause, Step
from tests.reliability.spoiling import Conversation, make_spoiled

AT_ONCE = 128
"""Conversations held at the same time."""

CONNECT_S = 20.0
SEND_S = 1.0
"""How long a stranger bears a node that does not take its bytes."""

LAST_WORDS_S = 1.0
"""How long a stranger that ended its own side waits for the node's end."""

SILENCE_S = 0.05
"""How long a stranger stays that has nothing more to say."""

RESET = struct.pack("ii", 1, 0)


async def let_talk(ports: Mapping[str, int], seed: int, seconds: float, at_least: int = 1) -> int:
    """Hold the conversations of this seed, many at a time, for so long and until there were so many; say how many."""
    numbers = itertools.count()
    held = 0
    enough = trio.Event()

    async def stranger(own: int) -> None:
        nonlocal held
        while True:
            conversation = make_spoiled(seed, next(numbers))
            await converse(ports[conversation.listener], conversation, f"127.0.0.{own % 200 + 2}")
            held += 1
            if held >= at_least:
                enough.set()

    async with trio.open_nursery() as nursery:
        for own in range(AT_ONCE):
            nursery.start_soon(stranger, own)
        await trio.sleep(seconds)
        await enough.wait()
        nursery.cancel_scope.cancel()
    return held


async def converse(port: int, conversation: Conversation, address: str = "127.0.0.1") -> None:
    """Hold one conversation from `address`. Whatever the node answers, and however it ends it, is fine."""
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.bind((address, 0))  # a port of one address is not free again at once: there are many addresses
        await _connect(connection, port)
        with contextlib.suppress(OSError, trio.TooSlowError):
            for step in conversation.steps:
                await _take(connection, step)
            await _end(connection, conversation.ending)


async def _connect(connection: socket.socket, port: int) -> None:
    with contextlib.suppress(BlockingIOError):
        connection.connect(("127.0.0.1", port))
    with trio.fail_after(CONNECT_S):
        await trio.lowlevel.wait_writable(connection)
    refused = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert not refused, f"port {port} does not accept: {refused}"


async def _take(connection: socket.socket, step: Step) -> None:
    if isinstance(step, Pause):
        await trio.sleep(step.seconds)
    elif isinstance(step, Listen):
        await _listen(connection, step.seconds)
    else:
        await _send(connection, step)


async def _send(connection: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    with trio.fail_after(SEND_S):
        while rest:
            try:
                rest = rest[connection.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(connection)


async def _listen(connection: socket.socket, seconds: float) -> bool:
    """Wait for bytes and throw them away; False at the end of the stream."""
    with trio.move_on_after(seconds):
        await trio.lowlevel.wait_readable(connection)
        return bool(connection.recv(65536))
    return True


async def _end(connection: socket.socket, ending: str) -> None:
    if ending == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    elif ending == "silence":
        await trio.sleep(SILENCE_S)
    elif ending == "half-close":
        connection.shutdown(socket.SHUT_WR)
        with trio.move_on_after(LAST_WORDS_S):
            while await _listen(connection, LAST_WORDS_S):
                pass
