"""What goes into and comes out of Redis: durable publishes from many tasks, and messages received into the hub.

The references are what the product is held to: 40,000 durable publishes and 100,000 received messages a second. Beside
them stand the same script, and the same messages, taken by redis-py's synchronous client in pipelines: what the server
itself is good for on this machine, in this minute.
"""

import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from redis import Redis

from notifyd.broker.base import Receiver, Retention
from notifyd.broker.redis.broker import RedisBroker
from notifyd.broker.redis.envelope import pack_message
from notifyd.broker.redis.keys import Names
from notifyd.clock import Clock
from notifyd.events import NoEvents
from notifyd.hub.hub import Hub
from notifyd.settings import BrokerSettings, Settings, Url
from tests.bench.counterpart import running
from tests.bench.result import Result, compare
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.kit.services import open_services

TASKS = 256
TOPICS = 100
DATA = {"text": "x" * 150}
KEEP = Retention(1000, 3600.0)
PIPELINED = 200
PUBLISHED_US = 1e6 / 40_000
RECEIVED_US = 1e6 / 100_000

PUBLISHER = """
import sys
from redis import Redis
redis, channel, envelope = Redis(port=int(sys.argv[1])), sys.argv[2], bytes.fromhex(sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    first, count = map(int, line.split())
    for start in range(first, first + count, 500):
        with redis.pipeline(transaction=False) as pipe:
            for offset in range(start, start + 500):
                pipe.publish(channel, b"me1:%d:1790000000000:" % offset + envelope)
            pipe.execute()
    print("sent", flush=True)
"""


async def measure(*, quick: bool) -> list[Result]:
    """Publish, then receive, each in turns with its counterpart."""
    times, rounds = (TASKS * 40, 3) if quick else (TASKS * 200, 7)
    with standalone(appendonly="no", save="") as server:
        async with _hub(server) as hub:
            await _published_us(hub, times // 10)
            published = [(await _published_us(hub, times), _piped_us(hub, server, times // 4)) for _ in range(rounds)]
            received = [await _received_us(hub, server, times, 1 + round_ * times) for round_ in range(rounds)]
    figures = [figure for figure, _ in published]
    return [
        compare(
            "durable publish",
            "us",
            f"40,000/s, {TASKS} tasks",
            [(figure, PUBLISHED_US) for figure in figures],
            target=1.0,
        ),
        compare("durable publish, as the server can", "us", "redis-py in pipelines", published, target=0.4),
        compare(
            "received into the hub, CPU",
            "us",
            "100,000/s on one core",
            [(us, RECEIVED_US) for us in received],
            target=1.0,
        ),
    ]


@asynccontextmanager
async def _hub(server: RedisServer) -> AsyncIterator[Hub]:
    settings = Settings(broker=BrokerSettings(url=Url(server.url), timeout_s=10.0))

    def open_broker(receiver: Receiver) -> RedisBroker:
        return RedisBroker(receiver, settings.broker, node="bench", clock=Clock(), events=NoEvents())

    hub = Hub(settings, open_broker, clock=Clock(), events=NoEvents())
    async with open_services() as services:
        await hub.broker.start(services)
        await services.start("fanout", hub.fanout.run)
        yield hub


async def _published_us(hub: Hub, times: int) -> float:
    async def work(number: int) -> None:
        for _ in range(times // TASKS):
            await hub.broker.publish(f"bench:{number % TOPICS}", DATA, KEEP)

    began_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(work, number)
    return (time.perf_counter() - began_s) / times * 1e6


def _piped_us(hub: Hub, server: RedisServer, times: int) -> float:
    """Run the very script from a client that does nothing else. Returns the real time of one, in microseconds."""
    broker = hub.broker
    assert isinstance(broker, RedisBroker)
    script, names = broker._history._publish, Names("notifyd")
    packed = pack_message(DATA, None, None, "bench", 1)
    with Redis(port=server.port) as redis:
        began_s = time.perf_counter()
        for start in range(0, times, PIPELINED):
            with redis.pipeline(transaction=False) as pipe:
                for number in range(start, start + PIPELINED):
                    topic = f"bench:{number % TOPICS}"
                    keys = [names.topic(topic), names.stream(topic)]
                    arguments = [1000, 3_600_000, "fresh", packed, names.channel(topic), "PUBLISH", 300_000, "", ""]
                    pipe.evalsha(script.sha, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
                pipe.execute()
        return (time.perf_counter() - began_s) / times * 1e6


async def _received_us(hub: Hub, server: RedisServer, times: int, first: int) -> float:
    """Let another process publish; return this process's CPU for one message, from its socket into the hub."""
    times = times // 500 * 500
    topic = f"received:{first}"
    await hub.broker.subscribe(topic, KEEP)
    envelope = pack_message({"text": "x" * 130}, None, None, "other", 1)
    command = [sys.executable, "-c", PUBLISHER, server.port, Names("notifyd").channel(topic), envelope.hex()]
    counted = _Counting(hub.fanout.deliver)
    hub.fanout.deliver = counted  # type: ignore[method-assign, assignment]
    try:
        async with running(command) as publisher:
            await publisher.tell(b"1 500\n")
            await counted.reaches(500)
            began_s = time.process_time()
            await publisher.tell(f"501 {times}\n".encode())
            await counted.reaches(500 + times)
            return (time.process_time() - began_s) / times * 1e6
    finally:
        hub.fanout.deliver = counted.deliver  # type: ignore[method-assign, assignment]
        await hub.broker.unsubscribe(topic)


class _Counting:
    """Stands before the fan-out's `deliver`, and counts."""

    def __init__(self, deliver: object) -> None:
        self.deliver = deliver
        self.count = 0

    def __call__(self, batch: Sequence[object]) -> None:
        self.count += len(batch)
        self.deliver(batch)  # type: ignore[operator]

    async def reaches(self, count: int) -> None:
        with trio.fail_after(60):
            while self.count < count:  # noqa: ASYNC110 - it must cost the measured process nothing
                await trio.sleep(0.005)
