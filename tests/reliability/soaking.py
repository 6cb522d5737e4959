"""Clients that come, do something, and go in one of the many ways there are; and what a node has left of them."""

import json
import random
import socket
import struct

import trio

from notifyd.auth.tokens import Signer
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.reliability.node_process import NodeProcess
from tests.reliability.raw_clients import UPGRADE, RawDevice, RawWebSocket, data_frame, heartbeat
from tests.unit.transport.client_frames import CLOSE, PING, TEXT, frame

AT_ONCE = 20
TOPICS = 30
GAUGES = ("connections", "sessions", "topics", "tasks")
SECRET = "a secret of this test, long enough for HS512: 0123456789abcdef0123456789abcdef"
SOAK_SETTINGS = {
    "AUTH__ANONYMOUS": "false",
    "AUTH__KEYS": f'[{{ algorithm = "HS512", secret = {json.dumps(SECRET)} }}]',
    "SESSIONS__TTL": "10ms",
    "LIMITS__CONNECTS": "{ rate = 20000.0, burst = 20000 }",
    "TOPICS": '[{ match = "soak:*", history = 10, joins = true }]',
}
RESET = struct.pack("ii", 1, 0)


async def _websocket(port: int, token: str, topic: str, chance: random.Random) -> RawWebSocket:
    """Connect by `connect` or by the handshake, subscribe, and be told."""
    client = await RawWebSocket.open(port)
    if chance.random() < 0.5:
        await client.upgrade()
        await client.send(frame(TEXT, json.dumps({"op": "connect", "id": 1, "token": token}).encode()))
    else:
        await client.upgrade(UPGRADE.removesuffix(b"\r\n") + f"Authorization: Bearer {token}\r\n\r\n".encode())
    assert b'"connected"' in (await client.frame())[1]
    await client.send(frame(TEXT, json.dumps({"op": "subscribe", "id": 2, "topic": topic}).encode()))
    assert b'"subscribed"' in (await client.frame())[1]
    return client


async def _device(port: int, token: str, topic: str) -> RawDevice:
    client = await RawDevice.open(port)
    assert (await client.request({"op": "connect", "id": 1, "token": token}))["op"] == "connected"
    assert (await client.request({"op": "subscribe", "id": 2, "topic": topic}))["op"] == "subscribed"
    return client


async def _come_and_go(node: NodeProcess, number: int, token: str, chance: random.Random) -> None:
    """One client's life, with one of the many ends it can have."""
    topic = f"soak:{number % TOPICS}"
    is_device = number % 2 == 0
    client: RawDevice | RawWebSocket
    if is_device:
        client = await _device(node.ports["device"], token, topic)
    else:
        client = await _websocket(node.ports["websocket"], token, topic, chance)
    publish = {"op": "publish", "topic": topic, "data": number}
    last = {
        "a message": data_frame(publish) if is_device else frame(TEXT, json.dumps(publish).encode()),
        "a beat": heartbeat(0, 1) if is_device else frame(PING, b"x"),
        "half a frame": (data_frame(publish) if is_device else frame(TEXT, b"xxxx"))[:5],
        "a fault": b"nonsense" * 4,
        "a goodbye": b"" if is_device else frame(CLOSE, b"\x03\xe8"),
        "nothing": b"",
    }
    await client.send(chance.choice(list(last.values())))
    if chance.random() < 0.3:
        client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


async def _let_come_and_go(node: NodeProcess, count: int, seed: int) -> None:
    """Let so many clients come, some at once, and go."""
    token = Signer(AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),))).sign(
        "ann", now_s=1_700_000_000, subscribe=["**"], publish=["**"]
    )
    chance = random.Random(seed)
    numbers = iter(range(count))

    async def clients() -> None:
        for number in numbers:
            await _come_and_go(node, number, token, chance)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(clients)


async def _at_rest(node: NodeProcess) -> tuple[dict[str, float], int]:
    """The gauges and descriptors of the node once nobody is connected."""
    await node.wait_metric("connections", 0)
    await node.wait_metric("topics", 0)
    await trio.sleep(1.2)  # sessions have run out, and were swept
    return {name: await node.metric(name) for name in GAUGES}, await node.steady_descriptors()


async def soak(node: NodeProcess, *, warm_up: int, clients: int) -> tuple[int, int]:
    """Let so many come and go, and then these; the memory of the node at rest before them and after, in bytes.

    Raises AssertionError where gauges, descriptors or the barrier are not what they were.
    """
    await _let_come_and_go(node, warm_up, seed=1)
    before, before_bytes = await _at_rest(node), node.resident_bytes
    await _let_come_and_go(node, clients, seed=2)
    assert await _at_rest(node) == before
    assert await node.metric("barrier_hits_total") == 0
    assert node.failures == []
    return before_bytes, node.resident_bytes
