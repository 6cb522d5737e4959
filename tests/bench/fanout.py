"""One message to a thousand WebSocket clients of a whole node, against a bare loop of send(2) in C.

Both send the same bytes over TCP on loopback, in turns, to one other process that reads them away. What is told is the
CPU time of the sending thread for one message at one connection.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from notifyd.hub.delivery import Delivery
from notifyd.model import Notification
from notifyd.node import Node
from notifyd.settings import TopicPolicy
from protocol.framing import Form
from protocol.topics import Pattern
from tests.bench.bare_sends import BareSends, bare_sends
from tests.bench.crowd import crowded_node
from tests.bench.result import Result, compare

TOPIC = "orders:status"
DATA = {
    "order": 4711,
    "state": "paid",
    "items": [{"sku": "A-100", "count": 2}, {"sku": "B-7", "count": 1}],
    "total": 18.5,
    "note": "leave it with the neighbours at 12 b",
}
"""150 bytes of JSON."""

JOINED = 16
TARGETS = {1: 0.7, JOINED: 0.5}
READ_AWAY_S = 0.02
"""A pause after each round, so that the next one finds empty sockets."""


async def measure(*, quick: bool) -> list[Result]:
    """Hand out single messages, then `JOINED` at once; each time by the hub, then by the bare loop."""
    connections, rounds = (250, 15) if quick else (1000, 60)
    results = []
    async with serving(connections) as (node, bare):
        for messages, target in TARGETS.items():
            costs = [(await by_hub_us(node, messages), await _by_loop_us(node, bare, messages)) for _ in range(rounds)]
            name = "fan-out, one message" if messages == 1 else f"fan-out, {messages} joined"
            results.append(compare(name, "us", f"send(2) in C, {connections} clients", costs, target=target))
        outboxes = [subscriber.outbox for subscriber in node.context.hub.registry.subscribers.values()]
        assert len(outboxes) == connections
        assert not any(outbox.is_blocked for outbox in outboxes)
    return results


async def by_hub_us(node: Node, messages: int) -> float:
    """Publish so many messages at once; return the CPU time of each at one connection, in microseconds."""
    hub = node.context.hub
    began_s = time.process_time()
    for _ in range(messages):
        await hub.publish(TOPIC, DATA)
    for _ in range(2):  # the fan-out's own task sends: in the next step of the scheduler, or in the one after it
        await trio.lowlevel.checkpoint()
    spent_s = time.process_time() - began_s
    await trio.sleep(READ_AWAY_S)
    return spent_s / len(hub.registry.topics[TOPIC].live) / messages * 1e6


async def _by_loop_us(node: Node, bare: BareSends, messages: int) -> float:
    page = await node.context.hub.history(TOPIC, "earliest", 1000)
    cpu_us, _ = await bare.send(b"".join(_frame(notification) for notification in page.messages[-messages:]))
    await trio.sleep(READ_AWAY_S)
    return cpu_us / messages


def _frame(notification: Notification) -> bytes:
    return Delivery.of(notification, TopicPolicy(match=Pattern("**"))).frame(Form.WEBSOCKET_JSON)


@asynccontextmanager
async def serving(connections: int) -> AsyncIterator[tuple[Node, BareSends]]:
    """Run a node with subscribed clients, and as many bare connections beside it; both lead to the same process."""
    async with (
        bare_sends(connections) as bare,
        crowded_node(connections, TOPIC, bare_port=bare.port) as node,
    ):
        await bare.connected()
        yield node, bare
