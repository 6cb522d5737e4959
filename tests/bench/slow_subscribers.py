"""What a hundred subscribers that stop reading do to nine hundred others: how late messages are, with them and before.

Messages are large enough for the stalled ones to be full within a second. Real time: a machine that does something
else shows that here.
"""

from tests.bench.crowd import bench_process, crowded_node
from tests.bench.fanout_paced import DIALOGUE, PATH, late_ms
from tests.bench.fanout_rate import TOPIC, TOPICS
from tests.bench.result import Result

PER_S = 20
PAYLOAD_BYTES = 8000
LOSING = [{**TOPICS[0], "overflow": "gap"}]
TARGET = 0.5
"""The others' latency may double."""


async def measure(*, quick: bool) -> list[Result]:
    """Publish at an even pace, then again with a tenth of all stalled."""
    seconds, clients, stalled = (2, 225, 25) if quick else (9, 900, 100)
    async with crowded_node(0, TOPIC, settings={"topics": LOSING, "limits.queue": "128KiB"}) as node:
        assert node.websocket_address is not None
        assert node.device_address is not None
        port, publish_port = node.websocket_address.port, node.device_address.port
        async with bench_process("listen", port, PATH, clients, *DIALOGUE) as listeners:
            before = await late_ms(listeners, publish_port, PER_S, PER_S * seconds, PAYLOAD_BYTES)
            async with bench_process("stalled", port, PATH, stalled, *DIALOGUE):
                beside = await late_ms(listeners, publish_port, PER_S, PER_S * seconds, PAYLOAD_BYTES)
                outboxes = [subscriber.outbox for subscriber in node.context.hub.registry.subscribers.values()]
                assert sum(outbox.is_blocked for outbox in outboxes) == stalled
    against = f"before; {stalled} of {clients + stalled} clients stalled"
    return [
        Result("lateness beside slow subscribers, p50", "ms", beside[0], before[0], against),
        Result("lateness beside slow subscribers, p99", "ms", beside[1], before[1], against, target=TARGET),
    ]
