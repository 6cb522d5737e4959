"""`notifyd serve` and its operator: signals, exit codes, and a port that is taken."""

import json
import signal
import subprocess
import sys
import time

import pytest
import trio

from tests.reliability.node_process import NodeProcess, running_node, started_node
from tests.reliability.raw_clients import RawDevice, RawWebSocket

GOODBYE = {"op": "goaway", "reason": "shutdown", "after": 0.0, "within": 1.0}


@pytest.mark.guard(30)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_tells_every_client_and_ends_with_0(number: signal.Signals) -> None:
    with started_node({"NODE__DRAIN": "1s"}) as node:
        websockets = [await RawWebSocket.connected(node.ports["websocket"], "a") for _ in range(5)]
        devices = [await RawDevice.connected(node.ports["device"], "a") for _ in range(5)]
        silent = await RawWebSocket.open(node.ports["websocket"])
        unconnected = await RawWebSocket.open(node.ports["websocket"])
        await unconnected.upgrade()
        began_s = time.monotonic()
        node.process.send_signal(number)
        for websocket in websockets:
            assert json.loads((await websocket.frame())[1]) == GOODBYE
        for device in devices:
            assert await device.message() == GOODBYE
        with pytest.raises(ConnectionRefusedError):
            await RawDevice.open(node.ports["device"])
        assert await unconnected.close_code() == 1012
        await silent.wait_closed()
        for websocket in websockets:
            assert await websocket.close_code() == 1012
        for device in devices:
            assert await device.error_code() == 1012
        silent.close()
        assert time.monotonic() - began_s >= 0.7
        assert await node.wait_ended() == 0
        assert [line["event"] for line in node.log][-2:] == ["draining", "stopped"]
        assert node.failures == []


@pytest.mark.guard(30)
async def test_clients_leave_evenly_over_the_window() -> None:
    with started_node({"NODE__DRAIN": "2s"}) as node:
        devices = [await RawDevice.connected(node.ports["device"]) for _ in range(20)]
        gone_s: list[float] = []

        async def leave(device: RawDevice) -> None:
            assert await device.error_code() == 1012
            gone_s.append(time.monotonic() - began_s)

        began_s = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(leave, device)
        assert await node.wait_ended() == 0
        halves = [sum(1 for gone in gone_s if gone <= 1), sum(1 for gone in gone_s if gone > 1)]
        assert min(halves) >= 5, sorted(gone_s)


@pytest.mark.guard(30)
async def test_a_second_signal_ends_it_at_once() -> None:
    with started_node({"NODE__DRAIN": "10m"}) as node:
        websocket = await RawWebSocket.connected(node.ports["websocket"])
        device = await RawDevice.connected(node.ports["device"])
        deaf = await RawDevice.connected(node.ports["device"])
        node.process.send_signal(signal.SIGTERM)
        await websocket.frame()
        await device.message()
        began_s = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        assert await websocket.close_code(silent=True) == 1012
        assert await device.error_code() == 1012
        assert await node.wait_ended() == 0
        assert time.monotonic() - began_s <= 3
        deaf.close()
        websocket.close()
        assert [line["event"] for line in node.log][-2:] == ["stopping_at_once", "stopped"]
        assert node.failures == []


@pytest.mark.guard(30)
async def test_without_clients_it_ends_at_once() -> None:
    with started_node({"NODE__DRAIN": "10m"}) as node:
        began_s = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        assert await node.wait_ended() == 0
        assert time.monotonic() - began_s <= 5


def _serve_in_vain(node: NodeProcess, listener: str) -> subprocess.CompletedProcess[bytes]:
    """Start a second node on a port of the first."""
    flags = {"websocket": "127.0.0.1:0", "device": "127.0.0.1:0", "http": "127.0.0.1:0"}
    flags[listener] = f"127.0.0.1:{node.ports[listener]}"
    command = [sys.executable, "-c", "from notifyd.cli import main; main()", "serve"]
    command += [part for name, address in flags.items() for part in (f"--{name}", address)]
    environment = {"NOTIFYD_AUTH__ANONYMOUS": "true", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, env=environment, timeout=30, check=False)


@pytest.mark.guard(60)
async def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    async with running_node() as node:
        for listener in ("websocket", "device", "http"):
            ended = _serve_in_vain(node, listener)
            assert ended.returncode == 1
            assert ended.stdout == b""
            for_people = [line for line in ended.stderr.decode().splitlines() if not line.startswith("{")]
            address = f"127.0.0.1:{node.ports[listener]}"
            problem = f"cannot listen on {address} (listen.{listener}): Address already in use: "
            assert for_people == [problem + "another program has the port; stop it or choose another"]
        (await RawDevice.connected(node.ports["device"])).close()
