"""RELIABILITY row 19, what of it is held already: the connection limit, and a node without a descriptor left."""

import contextlib
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.certificates import Certificates, certificates
from tests.reliability.healthy import healthy_connections
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, RawSocket, RawWebSocket

__all__ = ["certificates"]

LIMIT, RESUME = 10, 6
HELD = "connections(?:_opening)?"
"""Both count: those whose handshake is done, and those in it."""

LIMITS = {"LIMITS__CONNECTIONS": f"{{ limit = {LIMIT}, resume = {RESUME} }}"}
REFUSAL = {"code": 503, "reason": "unavailable", "message": "the connection limit is reached"}
SPARE_DESCRIPTORS = 20
STRANGERS = 60
FLOOD = 300


async def _assert_refused(node: NodeProcess) -> None:
    websocket = await RawWebSocket.open(node.ports["websocket"])
    head = await websocket.upgrade()
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"\r\nRetry-After: " in head
    assert json.loads(await websocket.read_rest()) == {"error": REFUSAL}
    websocket.close()
    device = await RawDevice.open(node.ports["device"])
    assert await device.message() == {"op": "error", **REFUSAL}
    with pytest.raises(EOFError):
        await device.frame()
    device.close()


async def _flood(node: NodeProcess, report: Callable[[str], None]) -> None:
    """Come in vain, many times: each is answered in no time, and nothing of it stays."""
    descriptors = await node.steady_descriptors()
    took_s = []
    for _ in range(FLOOD):
        began_s = time.perf_counter()
        stranger = await RawDevice.open(node.ports["device"])
        assert (await stranger.message())["code"] == 503
        took_s.append(time.perf_counter() - began_s)
        stranger.close()
    await node.wait_descriptors(descriptors)
    middle_s = sorted(took_s)[FLOOD // 2]
    report(f"row 19: refused in {middle_s * 1000:.1f} ms (median)")
    assert middle_s <= 0.010


async def _let_in(node: NodeProcess, seconds: float) -> RawDevice:
    """Try until the node lets a client in."""
    with trio.fail_after(seconds):
        while True:
            device = await RawDevice.open(node.ports["device"])
            with contextlib.suppress(EOFError, trio.BrokenResourceError):
                if (await device.request({"op": "connect", "id": 1}))["op"] == "connected":
                    return device
            device.close()
            await trio.sleep(0.02)


@pytest.mark.guard(30)
async def test_above_the_limit_all_are_refused_until_below_resume(report: Callable[[str], None]) -> None:
    async with running_node(LIMITS) as node:
        held: list[Any] = [await RawDevice.connected(node.ports["device"]) for _ in range(4)]
        held += [await RawWebSocket.connected(node.ports["websocket"]) for _ in range(4)]
        held.append(await RawWebSocket.open(node.ports["websocket"]))  # handshakes count too
        held.append(await RawDevice.open(node.ports["device"]))
        await node.wait_metric(HELD, LIMIT)
        await _assert_refused(node)
        while len(held) > RESUME:
            held.pop(0).close()
            await node.wait_metric(HELD, len(held))
            await _assert_refused(node)
        held.pop(0).close()
        held += [
            await _let_in(node, 5),
            *[await RawDevice.connected(node.ports["device"]) for _ in range(LIMIT - RESUME)],
        ]
        await node.wait_metric(HELD, LIMIT)
        await _flood(node, report)
        assert (await held[-1].request({"op": "ping", "id": 2}))["op"] == "pong"
        assert await node.metric("refusals_total", reason="connection_limit") >= FLOOD + 2 * (LIMIT - RESUME + 1)
        assert await node.metric("barrier_hits_total") == 0


@pytest.mark.guard(30)
async def test_where_clients_speak_tls_they_are_refused_by_tls(certificates: Certificates) -> None:
    tls = f'{{ certificate = "{certificates.server}", key = "{certificates.server_key}" }}'
    async with running_node({"LIMITS__CONNECTIONS": "{ limit = 1 }", "LISTEN__TLS": tls}) as node:
        trusting = certificates.client_context()
        held = await RawDevice.open(node.ports["device"], tls=trusting)
        assert (await held.request({"op": "connect", "id": 1}))["op"] == "connected"
        websocket = await RawWebSocket.open(node.ports["websocket"], tls=trusting)
        assert b" 503 " in await websocket.upgrade()
        device = await RawDevice.open(node.ports["device"], tls=trusting)
        assert (await device.message())["code"] == 503
        silent = await RawSocket.open(node.ports["device"])
        plain = await RawSocket.open(node.ports["device"])
        await plain.send(b"HEAR")
        began_s = time.monotonic()
        await silent.wait_closed()
        await plain.wait_closed()
        assert time.monotonic() - began_s <= 5
        assert (await held.request({"op": "ping", "id": 2}))["op"] == "pong"
        assert await node.metric("barrier_hits_total") == 0


@pytest.mark.guard(60)
async def test_without_a_descriptor_left_it_serves_its_clients_and_accepts_again(report: Callable[[str], None]) -> None:
    async with running_node() as node, healthy_connections(node.ports["device"], 20, every_s=0.1) as healthy:
        limit = await node.steady_descriptors() + SPARE_DESCRIPTORS
        _, hard = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
        quiet = await _cpu_share(node, 0.7)
        strangers = [await RawSocket.open(node.ports["websocket"]) for _ in range(STRANGERS)]
        strangers += [await RawSocket.open(node.ports["device"]) for _ in range(STRANGERS)]
        await node.wait_logged("no_descriptor_left", 2)
        assert node.descriptors == limit
        busy = await _cpu_share(node, 1.2)
        await healthy.assert_p99(0.050)
        assert busy - quiet <= 0.20
        assert len(node.events("no_descriptor_left")) <= 15  # a few a minute for each listener
        began_s = time.monotonic()
        for stranger in strangers:
            stranger.close()
        with trio.fail_after(5):
            for listener in (RawWebSocket, RawDevice):
                port = node.ports["websocket" if listener is RawWebSocket else "device"]
                (await listener.connected(port)).close()
        again_s = time.monotonic() - began_s
        await node.wait_metric("connections", 20)
        report(f"row 19: no descriptor left: {(busy - quiet) * 100:.0f} % CPU; accepts {again_s:.2f} s after release")
        assert await node.metric("barrier_hits_total") == 0


async def _cpu_share(node: NodeProcess, seconds: float) -> float:
    """What the node uses of a core meanwhile."""
    before_s, began_s = node.cpu_s, time.monotonic()
    await trio.sleep(seconds)
    return (node.cpu_s - before_s) / (time.monotonic() - began_s)
