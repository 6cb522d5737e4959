"""RELIABILITY row 2: spoiled conversations from outside. No client can end the process, or harm another client.

A failing run prints its seed: with it in the environment (`NOTIFYD_TEST_SEED=…`) the same conversations are held again.
"""

import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.reliability.crowd import let_talk
from tests.reliability.healthy import healthy_connections
from tests.reliability.node_process import NodeProcess, raise_descriptor_limit, running_node, wait_until
from tests.reliability.raw_clients import RawDevice, RawWebSocket, heartbeat
from tests.unit.transport.client_frames import BINARY, TEXT, frame

NORMAL_S = 6.0
LONG_S = 60.0
LONG_CONNECTIONS = 30_000
HEALTHY = 100
LISTENERS = 10
NEWS = "healthy:news"
PUBLISH_EVERY_S = 0.05


class Listener:
    """A healthy subscriber, and the offsets that it got. It answers the node's pings."""

    def __init__(self, client: RawDevice | RawWebSocket) -> None:
        self._client = client
        self.offsets: list[int] = []

    async def read(self) -> None:
        while True:
            message = await (self._device_message if isinstance(self._client, RawDevice) else self._websocket_message)()
            if message is not None:
                assert message["op"] == "message", message
                self.offsets.append(message["offset"])

    async def _device_message(self) -> Any:
        kind, timestamp, message = await self._client.frame()
        if kind == 0:
            await self._client.send(heartbeat(1, timestamp))
        return message

    async def _websocket_message(self) -> Any:
        opcode, payload = await self._client.frame()
        if opcode == BINARY:
            await self._client.send(frame(BINARY, payload[:4] + b"\1" + payload[5:]))
        return json.loads(payload) if opcode == TEXT else None


async def _publish(publisher: RawDevice, until: trio.Event, published: Callable[[int], None]) -> None:
    while not until.is_set():
        reply = await publisher.request({"op": "publish", "id": 1, "topic": NEWS, "data": "news"})
        assert reply["op"] == "published"
        published(reply["offset"])
        await trio.sleep(PUBLISH_EVERY_S)


@asynccontextmanager
async def others_that_lose_nothing(node: NodeProcess) -> AsyncIterator[None]:
    """Let healthy clients beat, publish and listen for the length of the block; all of it must arrive."""
    device, websocket = node.ports["device"], node.ports["websocket"]
    listeners = [Listener(await RawDevice.connected(device, NEWS)) for _ in range(LISTENERS)]
    listeners += [Listener(await RawWebSocket.connected(websocket, NEWS)) for _ in range(LISTENERS)]
    publisher, published, over = await RawDevice.connected(device), [], trio.Event()
    async with healthy_connections(device, HEALTHY), trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(listener.read)
        async with trio.open_nursery() as publishing:
            publishing.start_soon(_publish, publisher, over, published.append)
            yield
            over.set()
        await wait_until(lambda: all(len(listener.offsets) >= len(published) for listener in listeners))
        nursery.cancel_scope.cancel()
    assert published == list(range(1, len(published) + 1))
    assert all(listener.offsets == published for listener in listeners)


async def _bear_strangers(seconds: float, at_least: int = 1) -> str:
    """Let strangers talk to a node among healthy clients; a line for the report."""
    raise_descriptor_limit()
    seed = int(os.environ.get("NOTIFYD_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"NOTIFYD_TEST_SEED={seed}")
    async with running_node() as node:
        async with others_that_lose_nothing(node):
            connections, descriptors = await node.metric("connections"), await node.steady_descriptors()
            began_s = time.monotonic()
            held = await let_talk(node.ports, seed, seconds, at_least)
            took_s = time.monotonic() - began_s
            await node.wait_metric("connections", connections)
            await node.wait_descriptors(descriptors)
        assert await node.metric("barrier_hits_total") == 0
        assert node.failures == []
        return f"row 2: {held} spoiled conversations in {took_s:.0f} s, seed {seed}"


@pytest.mark.guard(60)
async def test_spoiled_conversations_end_nothing_but_themselves(report: Callable[[str], None]) -> None:
    report(await _bear_strangers(NORMAL_S))


@pytest.mark.long
@pytest.mark.guard(600)
async def test_60_seconds_and_30000_spoiled_conversations(report: Callable[[str], None]) -> None:
    report(await _bear_strangers(LONG_S, LONG_CONNECTIONS))
