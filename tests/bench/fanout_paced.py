"""How late messages are that come at an even pace: to a thousand clients of one node, and through Redis to a hundred.

From the publisher's clock to that of the clients, who are many in one process and on another core: what they need to
read is in it. The reference is the Centrifuge library in the same run, which publishes from inside its own process;
where there is no Go to build it with, what it needs on a comparable machine. Real time: a machine that does something
else shows that here.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.bench import centrifuge
from tests.bench.counterpart import Counterpart
from tests.bench.crowd import bench_process, crowded_node
from tests.bench.fanout_rate import TOPIC, TOPICS, behind_redis
from tests.bench.result import Result
from tests.reliability.line import Line

WARM_UP = 10
PATH = f"/ws?topics={TOPIC}"
DIALOGUE = ('{"op":"ping","id":1}', '"pong"')
PAYLOAD_BYTES = 150
NAMES_BYTES = 40
"""What a payload has beside its filler, about."""

FIELD_MS = 7.6, 18.8
"""Centrifuge's median and 99th percentile elsewhere."""


async def measure(*, quick: bool) -> list[Result]:
    """Publish at an even pace, to one node and to another behind Redis."""
    seconds, clients = (1, 250) if quick else (15, 1000)
    async with _listening(clients) as (listeners, port):
        alone = await late_ms(listeners, port, 20, 20 * seconds)
    reference = await _of_centrifuge(clients, 20, 20 * seconds) if centrifuge.can_be_built() and not quick else FIELD_MS
    async with behind_redis(0) as (node, port):
        assert node.websocket_address is not None
        async with bench_process("listen", node.websocket_address.port, PATH, 100, *DIALOGUE) as listeners:
            through_redis = await late_ms(listeners, port, 100, 100 * seconds)
    one, two = f"Centrifuge, 20 messages/s, {clients} clients", "Centrifuge elsewhere, 100 messages/s, 100 clients"
    return [
        Result("paced, p50", "ms", alone[0], reference[0], one),
        Result("paced, p99", "ms", alone[1], reference[1], one),
        Result("paced through Redis, p50", "ms", through_redis[0], 1.2, two),
        Result("paced through Redis, p99", "ms", through_redis[1], 3.0, two),
    ]


@asynccontextmanager
async def _listening(connections: int) -> AsyncIterator[tuple[Counterpart, int]]:
    async with crowded_node(0, TOPIC, settings={"topics": TOPICS}) as node:
        assert node.websocket_address is not None
        assert node.device_address is not None
        async with bench_process("listen", node.websocket_address.port, PATH, connections, *DIALOGUE) as listeners:
            yield listeners, node.device_address.port


async def _of_centrifuge(connections: int, per_s: int, messages: int) -> tuple[float, float]:
    async with centrifuge.running_centrifuge() as server:
        arguments = (int(server.first_line), centrifuge.PATH, connections, *centrifuge.DIALOGUE)
        async with bench_process("listen", *arguments) as listeners:
            await _pace(server, WARM_UP, per_s)
            await _ask(listeners)
            await _pace(server, messages, per_s)
            return await _ask(listeners)


async def _pace(server: Counterpart, messages: int, per_s: int) -> None:
    assert int(await server.ask(messages, PAYLOAD_BYTES, per_s)) == messages


async def late_ms(
    listeners: Counterpart, port: int, per_s: int, messages: int, payload_bytes: int = PAYLOAD_BYTES
) -> tuple[float, float]:
    """Publish so many at this pace; the median and the 99th percentile of how late they were, in milliseconds."""
    publisher = await Line.connected(port, "device")
    await _publish(publisher, per_s, WARM_UP, payload_bytes)
    await _ask(listeners)
    await _publish(publisher, per_s, messages, payload_bytes)
    publisher.close()
    return await _ask(listeners)


async def _publish(publisher: Line, per_s: int, messages: int, payload_bytes: int) -> None:
    began_s = trio.current_time()
    for number in range(1, messages + 1):
        data = {"sent": time.monotonic(), "filler": "x" * (payload_bytes - NAMES_BYTES)}
        await publisher.send({"op": "publish", "topic": TOPIC, "data": data})
        await trio.sleep_until(began_s + number / per_s)


async def _ask(listeners: Counterpart) -> tuple[float, float]:
    await trio.sleep(0.2)
    _, median_ms, late_ms = map(float, (await listeners.ask()).split())
    return median_ms, late_ms
