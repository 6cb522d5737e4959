"""What metrics cost the fan-out: one node with a thousand WebSocket clients, with metrics and without, in turns.

Without them nothing is counted and nothing observed: neither by telemetry, nor in the fan-out's own plain numbers, nor
by the instrument that watches the event loop. What is told is the CPU time for one message at one connection.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from notifyd.events import NoEvents
from notifyd.node import Node
from tests.bench.fanout import JOINED, by_hub_us, serving
from tests.bench.result import Result, compare

TARGET = 0.97
"""Metrics may cost 3 % at most."""


async def measure(*, quick: bool) -> list[Result]:
    """Hand out messages with metrics, then without."""
    connections, rounds = (250, 15) if quick else (1000, 200)
    async with serving(connections) as (node, _):
        single = [await _pair(node, 1, with_metrics_first=number % 2 == 0) for number in range(rounds)]
        joined = [await _pair(node, JOINED, with_metrics_first=number % 2 == 0) for number in range(rounds)]
    against = f"without, {connections} clients"
    return [
        compare("metrics, one message", "us", against, single, target=TARGET),
        compare(f"metrics, {JOINED} joined", "us", against, joined, target=TARGET),
    ]


async def _pair(node: Node, messages: int, *, with_metrics_first: bool) -> tuple[float, float]:
    """Measure both, one directly after the other, in changing order: the machine has its moods."""
    figure = await by_hub_us(node, messages) if with_metrics_first else 0.0
    with _without_metrics(node):
        reference = await by_hub_us(node, messages)
    return figure or await by_hub_us(node, messages), reference


@contextmanager
def _without_metrics(node: Node) -> Iterator[None]:
    fanout: Any = node.context.hub.fanout
    telemetry = fanout._events
    fanout._events = NoEvents()
    fanout._count_out = lambda *_arguments: None
    fanout._observe_sent = lambda: setattr(fanout, "_queued", [])
    trio.lowlevel.remove_instrument(node.lag)
    try:
        yield
    finally:
        trio.lowlevel.add_instrument(node.lag)
        del fanout._count_out, fanout._observe_sent
        fanout._events = telemetry
