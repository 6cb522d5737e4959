"""RELIABILITY row 6: clients that flood and never read."""

import math
import time
from collections.abc import Callable

import pytest
import trio

from tests.reliability.healthy import Healthy, healthy_connections
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, RawSocket, RawWebSocket, data_frame, heartbeat, masked

ATTACKERS = 2
MEBIBYTE = 2**20
CUT_OFF_S, OTHERS_P99_S = 5.0, 0.050
ROUNDS = 5
"""What else the machine does only ever adds time: the best of a few rounds is the node's own."""
REQUEST = {"op": "presence", "id": 1, "topic": "a"}

FLOODS: dict[str, tuple[type[RawDevice | RawWebSocket], bytes]] = {
    "websocket pings": (RawWebSocket, masked(9, b"x" * 125)),
    "websocket pongs": (RawWebSocket, masked(10, b"")),
    "websocket heartbeats": (RawWebSocket, masked(2, heartbeat(0, 1))),
    "empty fragments": (RawWebSocket, masked(0, b"", final=False)),
    "device heartbeats": (RawDevice, heartbeat(0, 1)),
    "device pongs": (RawDevice, heartbeat(1, 1)),
    "device requests": (RawDevice, data_frame(REQUEST)),
    "websocket requests": (RawWebSocket, masked(1, b'{"op":"presence","id":1,"topic":"a"}')),
    "bad requests": (RawDevice, data_frame({"op": "nonsense", "id": 1})),
}


async def _flood(socket: RawSocket, piece: bytes, first: bytes) -> float:
    """Send as fast as it goes until cut off; how long that took."""
    began_s = time.monotonic()
    try:
        await socket.send(first)
        while True:
            await socket.send(piece * (16384 // len(piece)))
            await trio.sleep(0.005)  # a second core is all the healthy ones and their measuring have
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return time.monotonic() - began_s


async def _attack(node: NodeProcess, flood: str, took: Callable[[float], None]) -> None:
    kind, piece = FLOODS[flood]
    port = node.ports["websocket" if kind is RawWebSocket else "device"]
    socket = await kind.connected(port)
    first = masked(1, b"", final=False) if flood == "empty fragments" else b""
    took(await _flood(socket, piece, first))


@pytest.mark.measured
@pytest.mark.guard(120)
async def test_floods_are_cut_off_and_the_others_do_not_feel_them(report: Callable[[str], None]) -> None:
    async with running_node() as node, healthy_connections(node.ports["device"], every_s=0.1) as healthy:
        for flood in FLOODS:
            for _ in range(ROUNDS):
                took_s, p99_s, bytes_each = await _round(node, healthy, flood)
                if took_s <= CUT_OFF_S and p99_s <= OTHERS_P99_S:
                    break
            report(f"row 6, {flood}: cut off after {took_s:.2f} s, others' p99 {p99_s * 1000:.1f} ms")
            assert took_s <= CUT_OFF_S
            assert p99_s <= OTHERS_P99_S
            assert bytes_each <= 2 * MEBIBYTE
        assert await node.metric("barrier_hits_total") == 0


async def _round(node: NodeProcess, healthy: Healthy, flood: str) -> tuple[float, float, float]:
    """Attack once: seconds until all attackers were cut off, the others' p99, memory for each attacker."""
    took_s: list[float] = []
    before, before_bytes = await _cut_off(node), node.resident_bytes
    healthy.forget()
    with trio.move_on_after(4 * CUT_OFF_S):
        async with trio.open_nursery() as nursery:
            for _ in range(ATTACKERS):
                nursery.start_soon(_attack, node, flood, took_s.append)
    p99_s, bytes_each = healthy.p99_s(), (node.resident_bytes - before_bytes) / ATTACKERS
    if len(took_s) < ATTACKERS:
        return math.inf, p99_s, bytes_each
    await trio.sleep(0.3)
    assert await _cut_off(node) == before + ATTACKERS
    return max(took_s), p99_s, bytes_each


async def _cut_off(node: NodeProcess) -> float:
    """How many connections ended for a reason that a flood ends for."""
    reasons = ("rate_limited", "policy_violation", "too_slow")
    return sum([await node.metric("connections_closed_total", reason=reason) for reason in reasons])


@pytest.mark.guard(30)
async def test_a_flood_of_heartbeats_gets_4029() -> None:
    async with running_node() as node:
        device = await RawDevice.connected(node.ports["device"])
        await device.send(heartbeat(0, 1) * 2100)
        assert await device.error_code() == 4029
        websocket = await RawWebSocket.connected(node.ports["websocket"])
        await websocket.send(masked(9, b"") * 2100)
        assert await websocket.close_code() == 4029


@pytest.mark.guard(30)
async def test_requests_above_the_rate_get_429_and_going_on_regardless_4029() -> None:
    async with running_node({"LIMITS__MESSAGES": "{ rate = 1, burst = 2 }"}) as node:
        device = await RawDevice.connected(node.ports["device"])
        assert (await device.request(REQUEST))["op"] == "presence"
        refused = await device.request(REQUEST)
        assert (refused["code"], refused["reason"], refused["id"]) == (429, "rate_limited", 1)
        assert 0 < refused["retry_after"] <= 1
        await device.send(data_frame(REQUEST) * 30)
        assert await device.error_code() == 4029
