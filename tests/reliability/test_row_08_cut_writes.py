"""RELIABILITY row 8: writes cancelled or timed out half-way never let a broken frame out."""

import random
import socket
import time

import pytest
import trio

from notifyd.listeners.device import device_server
from notifyd.node import Node, open_node
from notifyd.settings import AuthSettings, LimitSettings, ListenSettings, Settings
from notifyd.telemetry import Telemetry
from notifyd.transport.stream import SocketStream
from protocol.codec import FrameDecoder
from protocol.errors import CloseCode
from tests.reliability.raw_clients import data_frame

CUTS = 1000
ROUND = 100
PAYLOAD = "y" * 3000


def _pair() -> tuple[SocketStream, socket.socket]:
    server, client = socket.socketpair()
    for end in (server, client):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    client.setblocking(False)
    return SocketStream(server), client


async def _read_all(client: socket.socket) -> bytes:
    received = b""
    while True:
        await trio.lowlevel.wait_readable(client)
        try:
            data = client.recv(65536)
        except ConnectionError:
            return received
        if not data:
            return received
        received += data


def _check_frames(received: bytes) -> int:
    """Every byte belongs to a whole frame, but for a last one that was cut; how many whole ones."""
    decoder = FrameDecoder()
    decoder.receive(received)
    frames = 0
    while decoder.next_frame() is not None:
        frames += 1
    return frames


@pytest.mark.guard(60)
async def test_connections_cut_while_they_write_end_with_whole_frames_within_a_second() -> None:
    chance = random.Random(8)
    settings = Settings(
        auth=AuthSettings(anonymous=True),
        listen=ListenSettings(websocket=None, device=None, http=None),
        limits=LimitSettings(queue_bytes=64 * 1024),
    )
    async with open_node(settings, telemetry=Telemetry("warning")) as node, trio.open_nursery() as nursery:
        serve = device_server(node.context, None)
        for _ in range(CUTS // ROUND):
            clients = []
            for _ in range(ROUND):
                stream, client = _pair()
                nursery.start_soon(serve, stream)
                client.send(
                    data_frame({"op": "connect", "id": 1}) + data_frame({"op": "subscribe", "id": 2, "topic": "cut"})
                )
                clients.append(client)
            while _subscribed(node) < ROUND:
                await trio.lowlevel.checkpoint()
            for _ in range(chance.randrange(8, 18)):
                await node.context.hub.publish("cut", PAYLOAD)
                await trio.lowlevel.checkpoint()
            for connection in list(node.context.connections):
                assert connection.outbox.is_blocked
                if chance.random() < 0.5:
                    connection.end(CloseCode.TOO_SLOW, "cut")
                else:
                    connection.nursery.cancel_scope.cancel()
                if chance.random() < 0.3:
                    await trio.lowlevel.checkpoint()
            readers = chance.sample(clients, ROUND // 2)
            began_s = time.monotonic()
            async with trio.open_nursery() as reading:
                for client in readers:
                    reading.start_soon(_check_client, client)
            while node.context.connections:
                await trio.lowlevel.checkpoint()
            for client in set(clients) - set(readers):
                await _check_client(client)
            assert time.monotonic() - began_s <= 2.5
        nursery.cancel_scope.cancel()
        assert node.telemetry.total("barrier_hits") == 0


def _subscribed(node: Node) -> int:
    topic = node.context.hub.registry.topics.get("cut")
    if topic is None:
        return 0
    return len(topic.live) + sum(subscription.replayed for subscription in topic.catching_up.values())


async def _check_client(client: socket.socket) -> None:
    received = await _read_all(client)
    assert _check_frames(received) >= 2
    client.close()
