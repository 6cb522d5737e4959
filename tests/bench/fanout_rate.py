"""Deliveries a second to a thousand WebSocket clients, published as fast as accepted: by itself, and through Redis.

The node has one core, publishers and clients are on the others. What is told is its CPU time for one delivery, with all
of accepting and appending in it: so many a second are made by a core that does nothing else. It is held to what the
Centrifuge library makes on a comparable machine. Through Redis, another node accepts, and this one delivers.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from notifyd.hub.registry import Topic
from notifyd.node import Node
from tests.bench.counterpart import Counterpart
from tests.bench.crowd import bench_process, crowded_node
from tests.bench.fanout import DATA
from tests.bench.result import Result
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import running_nodes

TOPIC = "durable:status"
PUBLISHERS = 4
WINDOW = 32
CENTRIFUGE_PER_S = 420_000
REDIS_TARGET = 0.8
TOPICS = [{"match": "durable:**", "history": 1000, "publish": "anyone", "subscribe": "anyone"}]
DELIVER_S = 30.0


class Cost(NamedTuple):
    """What one delivery takes of the node's thread, and of real time."""

    cpu_us: float
    real_us: float


async def measure(*, quick: bool) -> list[Result]:
    """Publish to a node of its own, then through another node and Redis."""
    connections, messages = (250, 1000) if quick else (1000, 2000)
    async with crowded_node(connections, TOPIC, settings={"topics": TOPICS}) as node:
        assert node.device_address is not None
        alone = await _delivery(node, node.device_address.port, messages)
    async with behind_redis(connections) as (node, port):
        redis = await _delivery(node, port, messages)
    redis_target = None if quick else REDIS_TARGET  # with so few clients it is Redis that is measured
    centrifuge = f"Centrifuge, {CENTRIFUGE_PER_S:,}/s, {connections} clients"
    return [
        Result("fan-out, as fast as accepted", "us", alone.cpu_us, 1e6 / CENTRIFUGE_PER_S, centrifuge, target=1.0),
        Result("fan-out, through Redis", "us", redis.cpu_us, alone.cpu_us, "without Redis", target=redis_target),
        Result("the same, real time", "us", alone.real_us, 1e6 / CENTRIFUGE_PER_S, centrifuge),
        Result("the same through Redis, real time", "us", redis.real_us, alone.real_us, "without Redis"),
    ]


@asynccontextmanager
async def behind_redis(connections: int) -> AsyncIterator[tuple[Node, int]]:
    """Run two nodes over one Redis: that with the clients here, and one in a process of its own, with its port."""
    with standalone(appendonly="no") as server:
        async with (
            running_nodes(1, server.url) as nodes,
            crowded_node(connections, TOPIC, settings={"topics": TOPICS, "broker.url": server.url}) as node,
        ):
            yield node, nodes.port(0, "device")


async def _delivery(node: Node, port: int, messages: int) -> Cost:
    """Publish so many messages at this port; what each delivery took until the clients' sockets have them."""
    topic = node.context.hub.registry.topics[TOPIC]
    clients = len(topic.live) + len(topic.catching_up)
    async with bench_process("flood", port, PUBLISHERS, WINDOW, TOPIC, json.dumps(DATA)) as flood:
        await _publish(flood, topic, PUBLISHERS * WINDOW)  # the first is told the sizes of buffers
        began_s, began_real_s = time.process_time(), time.perf_counter()
        published = await _publish(flood, topic, messages)
        spent_s = time.process_time() - began_s
        real_s = time.perf_counter() - began_real_s
    assert len(topic.live) == clients, "none was too slow for this"
    delivered = clients * published
    return Cost(spent_s / delivered * 1e6, real_s / delivered * 1e6)


async def _publish(flood: Counterpart, topic: Topic, messages: int) -> int:
    """Let about so many be published, and wait until all clients' sockets have them; tell how many they were."""
    first = topic.position.offset if topic.position else 0
    published = int((await flood.ask(messages)).split()[0])
    with trio.fail_after(DELIVER_S):
        while topic.position is None or topic.position.offset < first + published or not _sent(topic):  # noqa: ASYNC110
            await trio.sleep(0.001)
    return published


def _sent(topic: Topic) -> bool:
    return not any(outbox.queued_bytes for outbox in topic.live)
