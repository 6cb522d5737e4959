"""RELIABILITY row 3: clients that open a connection and dawdle."""

import contextlib
import time

import pytest
import trio

from tests.reliability.node_process import raise_descriptor_limit, running_node
from tests.reliability.raw_clients import UPGRADE, RawSocket, RawWebSocket

SLOW = 2000
HANDSHAKE_S = 4.0


async def _closed_after_s(port: int, first: bytes, dribble: bytes) -> float:
    """How long a node bears a client that sends `first` and then a byte of `dribble` every half second."""
    began_s = time.monotonic()
    socket = await RawSocket.open(port)

    async def dribbling() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await socket.send(first)
            for byte in dribble:
                await trio.sleep(0.5)
                await socket.send(bytes([byte]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribbling)
        await socket.wait_closed()
        nursery.cancel_scope.cancel()
    return time.monotonic() - began_s


@pytest.mark.guard(60)
@pytest.mark.parametrize(
    ("listener", "first", "dribble"),
    [
        ("websocket", b"", b""),
        ("websocket", b"", UPGRADE),
        ("websocket", UPGRADE[:-1], b""),
        ("device", b"", b""),
        ("device", b"", b"HEAR" * 100),
    ],
    ids=["silent", "byte by byte", "all but the last byte", "silent device", "device byte by byte"],
)
async def test_a_dawdling_client_is_closed_within_the_handshake_deadline(
    listener: str, first: bytes, dribble: bytes
) -> None:
    async with running_node({"LIMITS__HANDSHAKE": "2s"}) as node:
        took_s = await _closed_after_s(node.ports[listener], first, dribble)
        assert 1.5 < took_s < 4
        assert await node.metric("barrier_hits_total") == 0


@pytest.mark.measured
@pytest.mark.guard(90)
async def test_good_clients_connect_among_2000_dawdling_ones() -> None:
    raise_descriptor_limit()
    async with running_node() as node:
        port = node.ports["websocket"]
        slow = [await RawSocket.open(port) for _ in range(SLOW)]
        for socket in slow[::2]:
            await socket.send(UPGRADE[:20])
        took_s = []
        for _ in range(100):
            began_s = time.perf_counter()
            good = await RawWebSocket.connected(port)
            took_s.append(time.perf_counter() - began_s)
            good.close()
        assert sorted(took_s)[98] <= 1.0
        for socket in slow:
            socket.close()
