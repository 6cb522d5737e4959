"""Two nodes over one Redis: how long a message takes from a client of one to a client of the other, and how a thousand
clients of a node that was killed are made whole by the other.

The references are what the product is held to, 2 ms and 8 ms at 1,000 messages a second, and the same clients that
connect and subscribe with nothing to catch up with.
"""

import time
from statistics import quantiles

import trio

from tests.bench.result import Result
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.line import Line
from tests.reliability.node_process import raise_descriptor_limit

TOPIC = "durable:bench"
PER_SECOND = 1000
WARM_UP = 200
MISSED = 100
UNPACED = {"LIMITS__CONNECTS": "{ rate = 100000, burst = 100000 }"}
CONNECTING = 32
"""Clients that connect at the same time."""


async def measure(*, quick: bool) -> list[Result]:
    """Time messages between two nodes, then recoveries after the death of one."""
    raise_descriptor_limit()
    seconds, clients = (3, 200) if quick else (10, 1000)
    with standalone() as server:
        async with running_nodes(2, server.url, settings=UNPACED) as nodes:
            delays_ms = await _delays_ms(nodes, seconds)
            fresh_us = await _connecting_us(nodes, clients)
            recovered_us = await _recovery_us(nodes, clients)
    percentiles = quantiles(delays_ms, n=100)
    against = f"{PER_SECOND} messages/s, two nodes"
    return [
        Result("node to node, p50", "ms", percentiles[49], 2.0, against, target=1.0),
        Result("node to node, p99", "ms", percentiles[98], 8.0, against, target=1.0),
        Result(f"client made whole, {MISSED} missed", "us", recovered_us, fresh_us, f"connect, {clients} clients", 0.2),
    ]


async def _delays_ms(nodes: NodeCluster, seconds: int) -> list[float]:
    publisher, subscriber = await _connected(nodes, 0), await _connected(nodes, 1)
    await subscriber.ask({"op": "subscribe", "id": 2, "topic": TOPIC})
    total = WARM_UP + PER_SECOND * seconds
    delays_ms: list[float] = []

    async def listen() -> None:
        while len(delays_ms) < total:
            push = await subscriber.next()
            if push["op"] == "message":
                delays_ms.append((time.perf_counter() - push["data"]) * 1000)

    with trio.fail_after(seconds + 30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            began_s = trio.current_time()
            for number in range(total):
                await trio.sleep_until(began_s + number / PER_SECOND)
                await publisher.send({"op": "publish", "topic": TOPIC, "data": time.perf_counter()})
    publisher.close()
    subscriber.close()
    return delays_ms[WARM_UP:]


async def _connecting_us(nodes: NodeCluster, clients: int) -> float:
    """Connect and subscribe so many clients at the second node; the real time of each."""
    began_s = time.perf_counter()
    lines = await _subscribed(nodes, 1, clients)
    spent_us = (time.perf_counter() - began_s) / clients * 1e6
    for line in lines:
        line.close()
    return spent_us


async def _recovery_us(nodes: NodeCluster, clients: int) -> float:
    """Kill the node of so many clients; the real time that each takes to have, at the other, all that it missed."""
    publisher, lines = await _connected(nodes, 1), await _subscribed(nodes, 0, clients)
    first = await publisher.ask({"op": "publish", "id": 2, "topic": TOPIC, "data": 0})
    position = {"epoch": first["epoch"], "offset": first["offset"]}
    await nodes.kill(0)
    for line in lines:
        line.close()
    for number in range(MISSED):
        await publisher.ask({"op": "publish", "id": 3 + number, "topic": TOPIC, "data": number})
    slots = trio.CapacityLimiter(CONNECTING)

    async def recover() -> None:
        async with slots:
            line = await _connected(nodes, 1)
            reply = await line.ask({"op": "subscribe", "id": 2, "topic": TOPIC, "since": position})
            assert reply["recovered"] is True
            offsets = [(await line.next())["offset"] for _ in range(MISSED)]
            assert offsets == [*range(position["offset"] + 1, position["offset"] + MISSED + 1)]
            line.close()

    began_s = time.perf_counter()
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(recover)
    return (time.perf_counter() - began_s) / clients * 1e6


async def _subscribed(nodes: NodeCluster, number: int, clients: int) -> list[Line]:
    lines: list[Line] = []
    slots = trio.CapacityLimiter(CONNECTING)

    async def connect() -> None:
        async with slots:
            line = await _connected(nodes, number)
            await line.ask({"op": "subscribe", "id": 2, "topic": TOPIC})
            lines.append(line)

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(connect)
    return lines


async def _connected(nodes: NodeCluster, number: int) -> Line:
    return await Line.connected(nodes.port(number, "websocket"), "websocket")
