"""RELIABILITY row 4: what a client may cost before anybody knows who it is."""

import time

import pytest
import trio

from tests.reliability.node_process import raise_descriptor_limit, running_node
from tests.reliability.raw_clients import RawDevice, RawWebSocket, data_frame, heartbeat, masked

CROWD = 500


@pytest.mark.guard(30)
async def test_who_says_nothing_is_closed_with_4001() -> None:
    async with running_node({"LIMITS__HANDSHAKE": "1s", "AUTH__ANONYMOUS": "false"}) as node:
        began_s = time.monotonic()
        websocket = await RawWebSocket.open(node.ports["websocket"])
        assert b" 101 " in await websocket.upgrade()
        device = await RawDevice.open(node.ports["device"])
        assert await websocket.close_code() == 4001
        assert await device.error_code() == 4001
        assert 0.9 < time.monotonic() - began_s < 3


@pytest.mark.guard(30)
async def test_heartbeats_do_not_stand_for_a_connect() -> None:
    async with running_node({"LIMITS__HANDSHAKE": "1s"}) as node:
        device = await RawDevice.open(node.ports["device"])
        await device.send(heartbeat(0, 1))
        assert await device.frame() == (1, 1, None)
        assert (await device.request({"op": "subscribe", "id": 3, "topic": "a"}))["code"] == 401
        assert await device.error_code() == 4001


@pytest.mark.guard(30)
@pytest.mark.parametrize("size", [4097, 65536])
async def test_more_than_4_kib_before_connect_closes(size: int) -> None:
    async with running_node() as node:
        websocket = await RawWebSocket.open(node.ports["websocket"])
        await websocket.upgrade()
        await websocket.send(masked(1, b" " * size))
        assert await websocket.close_code() == 1009
        device = await RawDevice.open(node.ports["device"])
        await device.send(data_frame({"op": "connect", "id": 1, "token": "x" * size}))
        assert await device.error_code() == 4013
        dripping = await RawDevice.open(node.ports["device"])
        await dripping.send(heartbeat(0, 1) * (size // 16 + 1))
        assert await dripping.error_code() == 4001


@pytest.mark.measured
@pytest.mark.guard(60)
async def test_a_crowd_of_strangers_costs_at_most_64_kib_each() -> None:
    raise_descriptor_limit()
    async with running_node() as node:
        before_bytes = node.resident_bytes
        crowd = []
        for _ in range(CROWD):
            websocket = await RawWebSocket.open(node.ports["websocket"])
            await websocket.upgrade()
            await websocket.send(masked(1, b"x" * 4000, announced=4090))
            device = await RawDevice.open(node.ports["device"])
            await device.send(data_frame({"op": "connect", "id": 1, "token": "x" * 4000})[:-1])
            crowd += [websocket, device]
        await trio.sleep(0.2)
        assert (node.resident_bytes - before_bytes) / len(crowd) <= 64 * 1024
        for socket in crowd:
            socket.close()
