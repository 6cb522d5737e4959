"""RELIABILITY row 5: messages over the limit, from peers that then say nothing more."""

import time

import pytest

from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, RawWebSocket, masked

LIMIT = 64 * 1024
TEBIBYTE = 2**40


async def _code_and_seconds(node: NodeProcess, *pieces: bytes) -> tuple[int | None, float]:
    """The close code, and how long the TCP connection outlived it under a peer that stays silent."""
    websocket = await RawWebSocket.connected(node.ports["websocket"])
    for piece in pieces:
        await websocket.send(piece)
    began_s = time.monotonic()
    code = await websocket.close_code(silent=True)
    await websocket.wait_closed()
    return code, time.monotonic() - began_s


@pytest.mark.guard(40)
async def test_one_byte_too_many_is_refused_with_1009_and_the_connection_goes() -> None:
    whole = (masked(1, b" " * (LIMIT + 1)),)
    fragmented = (
        masked(1, b" " * LIMIT, final=False),
        masked(0, b" "),
    )
    binary = (masked(2, b" " * (LIMIT + 17)),)
    announced = (masked(1, b"", announced=TEBIBYTE),)
    async with running_node() as node:
        for pieces in (whole, fragmented, binary, announced):
            code, gone_s = await _code_and_seconds(node, *pieces)
            assert code == 1009
            assert gone_s <= 5
        assert await node.metric("barrier_hits_total") == 0


@pytest.mark.guard(40)
async def test_the_limit_itself_is_no_fault() -> None:
    async with running_node() as node:
        websocket = await RawWebSocket.connected(node.ports["websocket"])
        padding = b'{"op":"ping","id":9,"x":"' + b" " * (LIMIT - 27) + b'"}'
        assert len(padding) == LIMIT
        await websocket.send(masked(1, padding))
        assert (await websocket.frame())[1] == b'{"op":"pong","id":9}'


@pytest.mark.guard(40)
async def test_a_device_frame_is_refused_from_its_header_alone() -> None:
    async with running_node() as node:
        device = await RawDevice.connected(node.ports["device"])
        await device.send(b"HEAR\x02" + bytes(8) + (LIMIT + 1).to_bytes(3, "big"))
        assert await device.error_code() == 4013
