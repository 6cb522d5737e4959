"""`notifyd serve` and its operator: signals, exit codes, and a port that is taken."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import trio

from tests.reliability.node_process import PORTS, started_node
from tests.reliability.raw_clients import RawDevice, RawWebSocket

CLIENTS = 10


@pytest.mark.guard(30)
async def test_sigterm_tells_every_client_and_lets_them_go_over_the_window() -> None:
    with started_node({"NODE__DRAIN": "1s"}) as node:
        clients = [await RawWebSocket.connected(node.ports["websocket"], "a") for _ in range(CLIENTS)]
        devices = [await RawDevice.connected(node.ports["device"], "a") for _ in range(CLIENTS)]
        silent = await RawWebSocket.open(node.ports["websocket"])
        unconnected = await RawWebSocket.open(node.ports["websocket"])
        await unconnected.upgrade()
        goodbye = {"op": "goaway", "reason": "shutdown", "after": 0.0, "within": 1.0}
        gone_s: list[float] = []

        async def hear_websocket(client: RawWebSocket) -> None:
            assert json.loads((await client.frame())[1]) == goodbye
            assert await client.close_code() == 1012
            gone_s.append(time.monotonic() - began_s)

        async def hear_device(device: RawDevice) -> None:
            assert await device.message() == goodbye
            assert await device.error_code() == 1012
            gone_s.append(time.monotonic() - began_s)

        began_s = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(hear_websocket, client)
            for device in devices:
                nursery.start_soon(hear_device, device)
            assert await unconnected.close_code() == 1012
            await silent.wait_closed()
            silent.close()
            for port in node.ports.values():
                if port != node.ports["http"]:
                    with pytest.raises(ConnectionRefusedError):
                        await RawDevice.open(port)
        gone_s.sort()
        assert gone_s[-1] >= 0.7
        assert gone_s[CLIENTS] - gone_s[0] >= 0.2, "the first half of them left in a crowd"
        assert await node.wait_ended() == 0
        assert [line["event"] for line in node.log][-2:] == ["draining", "stopped"]
        assert node.failures == []


@pytest.mark.guard(30)
async def test_sigint_does_the_same_and_without_clients_at_once() -> None:
    with started_node({"NODE__DRAIN": "10m"}) as node:
        began_s = time.monotonic()
        node.process.send_signal(signal.SIGINT)
        assert await node.wait_ended() == 0
        assert time.monotonic() - began_s <= 5
        assert [line["event"] for line in node.log][-2:] == ["draining", "stopped"]


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


@pytest.mark.guard(60)
async def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    ended: dict[str, subprocess.CompletedProcess[bytes]] = {}
    environment = {**os.environ, "NOTIFYD_AUTH__ANONYMOUS": "true"}

    async def serve_in_vain(listener: str, address: str) -> None:
        command = [
            sys.executable,
            "-c",
            "from notifyd.cli import main; main()",
            "serve",
            *PORTS,
            f"--{listener}",
            address,
        ]
        ended[listener] = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment
        )

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            for listener in ("websocket", "device", "http"):
                nursery.start_soon(serve_in_vain, listener, address)
    for listener, process in ended.items():
        assert process.returncode == 1
        assert process.stdout == b""
        for_people = [line for line in process.stderr.decode().splitlines() if not line.startswith("{")]
        problem = f"cannot listen on {address} (listen.{listener}): Address already in use: "
        assert for_people == [problem + "another program has the port; stop it or choose another"]
