"""How the fan-out's cost grows: with the subscribers of one topic, and with topics that have a few each.

The CPU time of the node's thread for one message at one connection, in microseconds, single messages and `JOINED` at
once. What it is compared with is a topic of a thousand.
"""

import time
from statistics import median

import trio

from notifyd.node import Node
from tests.bench.crowd import crowded_node
from tests.bench.curve import Curve
from tests.bench.fanout import DATA, JOINED, READ_AWAY_S, TOPIC, by_hub_us
from tests.bench.result import Result, compare

SUBSCRIBERS = (10, 100, 1000, 10_000)
FEW_TOPIC = "orders:{}"
ROUNDS = 20


async def measure(*, quick: bool) -> list[Result]:
    """Publish one message to a thousand clients of one topic, and one to each of as many topics with one client."""
    connections, rounds = (250, 15) if quick else (1000, 40)
    async with crowded_node(connections, TOPIC) as crowd, crowded_node(connections, FEW_TOPIC) as scattered:
        topics = list(scattered.context.hub.registry.topics)
        costs = [(await _by_topics_us(scattered, topics), await by_hub_us(crowd, 1)) for _ in range(rounds)]
    return [compare("publish to many topics, one client each", "us", f"one topic, {connections} clients", costs)]


async def curves(*, quick: bool) -> list[Curve]:
    """Tell, for each number of subscribers, what one message costs at each of them, alone and with others joined."""
    single: list[list[float]] = []
    joined: list[list[float]] = []
    for connections in SUBSCRIBERS[:3] if quick else SUBSCRIBERS:
        async with crowded_node(connections, TOPIC) as node:
            for messages, points in ((1, single), (JOINED, joined)):
                points.append([connections, median([await by_hub_us(node, messages) for _ in range(ROUNDS)])])
    lines = {"one message": single, f"{JOINED} joined": joined}
    return [Curve("fanout_growth", "CPU a delivery", "subscribers", "microseconds", lines, log_x=True, log_y=True)]


async def _by_topics_us(node: Node, topics: list[str]) -> float:
    hub = node.context.hub
    began_s = time.process_time()
    for topic in topics:
        await hub.publish(topic, DATA)
    for _ in range(2):
        await trio.lowlevel.checkpoint()
    spent_s = time.process_time() - began_s
    await trio.sleep(READ_AWAY_S)
    return spent_s / len(topics) * 1e6
