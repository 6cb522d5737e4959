"""`notifyd serve` with `node.workers`: one address, several processes, and an operator who need not know of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.certificates import Certificates, certificates
from tests.reliability.node_process import PORTS, NodeProcess, running_node, started_node, wait_until
from tests.reliability.raw_clients import RawDevice, RawWebSocket

__all__ = ["certificates"]

pytestmark = pytest.mark.guard(60)

WORKERS = 2
CLIENTS = 40
"""So many that the kernel hardly ever gives all to one worker."""


def with_workers(redis_url: str, **settings: str) -> dict[str, str]:
    return {"NODE__WORKERS": str(WORKERS), "NODE__NAME": "w", "BROKER__URL": redis_url, **settings}


@asynccontextmanager
async def running_workers(redis_url: str, **settings: str) -> AsyncIterator[NodeProcess]:
    async with running_node(with_workers(redis_url, **settings)) as node:
        yield node


def pid_of(node: NodeProcess, worker: int) -> int:
    """Return the process that serves as this worker now."""
    pid: int = [line["process"] for line in node.events("worker_serving") if line["worker"] == worker][-1]
    return pid


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


async def connected(node: NodeProcess) -> tuple[str, RawDevice]:
    """Connect a device; return the worker that it came to, by its node's name."""
    device = await RawDevice.open(node.ports["device"])
    answer = await device.request({"op": "connect", "id": 1})
    return answer["node"], device


async def crowd(node: NodeProcess, count: int = CLIENTS) -> dict[str, list[RawDevice]]:
    """Connect devices; return them by the name of their worker's node."""
    found: dict[str, list[RawDevice]] = {}
    for _ in range(count):
        name, device = await connected(node)
        found.setdefault(name, []).append(device)
    return found


async def connected_in_spite_of_resets(node: NodeProcess) -> tuple[str, RawDevice]:
    """Connect as a client does that comes back: a worker that dies resets those that it had not accepted."""
    while True:
        try:
            return await connected(node)
        except (OSError, EOFError, trio.BrokenResourceError):
            await trio.sleep(0.01)


async def test_clients_are_spread_over_the_workers_and_reach_each_other(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        assert [line["workers"] for line in node.events("serving")] == [WORKERS]
        assert node.events("serving")[0]["node"] == "w"
        assert len(node.events("descriptor_limit")) == 1
        devices = await crowd(node)
        assert set(devices) == {"w-1", "w-2"}
        everyone = [device for those in devices.values() for device in those]
        for device in everyone:
            assert (await device.request({"op": "subscribe", "id": 2, "topic": "a"}))["op"] == "subscribed"
        publisher = await RawWebSocket.connected(node.ports["websocket"])
        assert (await publisher.request({"op": "publish", "id": 3, "topic": "a", "data": 1}))["op"] == "published"
        for device in everyone:
            assert (await device.message())["data"] == 1
        assert node.failures == []


async def test_a_killed_worker_is_replaced_on_the_same_ports_and_the_others_go_on(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        devices = await crowd(node)
        killed = pid_of(node, 1)
        os.kill(killed, signal.SIGKILL)
        for device in devices["w-1"]:
            assert await device.error_code() is None
        returned = [await connected_in_spite_of_resets(node) for _ in devices["w-1"]]
        for device in (*devices["w-2"], *(device for _, device in returned)):
            assert (await device.request({"op": "ping", "id": 5}))["op"] == "pong"
        await node.wait_logged("worker_serving", WORKERS + 1)
        assert pid_of(node, 1) != killed
        assert set(await crowd(node)) == {"w-1", "w-2"}
        assert [line["service"] for line in node.failures] == ["workers/1"]


async def test_sigterm_drains_all_together(redis_url: str) -> None:
    with started_node(with_workers(redis_url, NODE__DRAIN="1s")) as node:
        devices = await crowd(node)
        codes: list[int | None] = []

        async def leave(device: RawDevice) -> None:
            assert (await device.message())["op"] == "goaway"
            codes.append(await device.error_code())

        node.process.send_signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            for device in [device for those in devices.values() for device in those]:
                nursery.start_soon(leave, device)
        assert codes == [1012] * CLIENTS
        assert await node.wait_ended() == 0
        assert sorted(line.get("node", "") for line in node.events("stopped")) == ["", "w-1", "w-2"]
        assert node.log[-1]["event"] == "stopped"
        assert node.failures == []


async def test_a_signal_to_all_processes_at_once_drains_and_a_second_one_stops(redis_url: str) -> None:
    with started_node(with_workers(redis_url, NODE__DRAIN="10m")) as node:
        devices = await crowd(node)
        processes = [node.process.pid, pid_of(node, 1), pid_of(node, 2)]
        for pid in processes:
            os.kill(pid, signal.SIGINT)
        for device in [device for those in devices.values() for device in those]:
            assert (await device.message())["op"] == "goaway"
        await node.wait_logged("draining", 1 + WORKERS)
        began_s = time.monotonic()
        for pid in processes:
            os.kill(pid, signal.SIGINT)
        assert await node.wait_ended() == 0
        assert time.monotonic() - began_s < 10
        assert len(node.events("stopping_at_once")) == 1
        assert node.failures == []


async def test_workers_end_with_a_parent_that_is_killed(redis_url: str) -> None:
    with started_node(with_workers(redis_url)) as node:
        await crowd(node)
        workers = [pid_of(node, 1), pid_of(node, 2)]
        node.process.kill()
        await wait_until(lambda: not any(map(is_alive, workers)))
        assert not any(map(is_alive, workers))
        assert len(node.events("parent_gone")) == WORKERS
        with pytest.raises(ConnectionRefusedError):
            await RawDevice.open(node.ports["device"])
        assert node.process.wait() == -signal.SIGKILL


async def test_a_worker_that_is_told_to_end_lets_its_clients_go_and_is_replaced(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        devices = await crowd(node)
        os.kill(pid_of(node, 2), signal.SIGTERM)
        for device in devices["w-2"]:
            assert await device.error_code() == 1012
        await node.wait_logged("worker_serving", WORKERS + 1)
        for device in devices["w-1"]:
            assert (await device.request({"op": "ping", "id": 5}))["op"] == "pong"


async def test_the_connection_limit_holds_for_all_together(redis_url: str) -> None:
    async with running_workers(redis_url, LIMITS__CONNECTIONS="{ limit = 10 }") as node:
        admitted = []
        for _ in range(4 * CLIENTS):
            device = await RawDevice.open(node.ports["device"])
            answer = await device.request({"op": "connect", "id": 1})
            if answer["op"] == "connected":
                admitted.append((answer["node"], device))
            else:
                assert answer["code"] == 503
                device.close()
        assert sorted(name for name, _ in admitted) == ["w-1"] * 5 + ["w-2"] * 5


async def test_a_reload_reaches_all(redis_url: str, tmp_path: Path) -> None:
    config = tmp_path / "notifyd.toml"
    config.write_text('[limits]\npayload = "1KiB"\n')
    publish = {"op": "publish", "id": 7, "topic": "a", "data": "x" * 500}
    async with running_node(with_workers(redis_url), config=config) as node:
        devices = await crowd(node)
        config.write_text('[limits]\npayload = "400B"\n[node]\ndrain = "9s"\n')
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reloaded", 1 + WORKERS)
        lines = {line.get("node"): line.get("needs_restart") for line in node.events("reloaded")}
        assert lines == {None: [], "w-1": None, "w-2": None}  # drain is given by the environment
        for name in ("w-1", "w-2"):
            [device, *_] = devices[name]
            assert (await device.request({**publish, "data": "x" * 300}))["op"] == "published"
        config.write_text("[limits]\npaylod = 1\n")
        node.process.send_signal(signal.SIGHUP)
        assert "paylod" in (await node.wait_logged("reload_refused"))["problem"]
        assert len(node.events("reload_refused")) == 1
        config.write_text('[log]\nlevel = "error"\n')
        node.process.send_signal(signal.SIGHUP)
        with trio.fail_after(20):
            while json.loads(await node.get("/v1/config"))["settings"]["log"]["level"] != "error":
                pass
        config.write_text("")
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reloaded", 2 * (1 + WORKERS))
        parents = [line for line in node.events("reloaded") if "node" not in line]
        assert len(parents) == 2, "the level holds for the parent too"


async def serve_in_vain(settings: dict[str, str], *options: str) -> list[str]:
    """Run a node that cannot start; return its lines for people."""
    environment = {**os.environ, "NOTIFYD_AUTH__ANONYMOUS": "true"}
    environment |= {f"NOTIFYD_{key}": value for key, value in settings.items()}
    command = [sys.executable, "-c", "from notifyd.cli import main; main()", "serve", *PORTS, *options]
    ended: subprocess.CompletedProcess[bytes] = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment
    )
    assert ended.returncode == 1
    assert ended.stdout == b""
    return [line for line in ended.stderr.decode().splitlines() if not line.startswith("{")]


async def test_a_port_that_is_taken_is_told_once(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = await serve_in_vain(with_workers(redis_url), "--device", address)
    problem = f"cannot listen on {address} (listen.device): Address already in use: "
    assert told == [problem + "another program has the port; stop it or choose another"]


async def test_a_port_of_another_node_with_workers_is_taken_too(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        address = f"127.0.0.1:{node.ports['http']}"
        told = await serve_in_vain(with_workers(redis_url), "--http", address)
        assert [f"cannot listen on {address} (listen.http)" in line for line in told] == [True]


async def test_what_only_a_worker_finds_out_is_told_once(redis_url: str, certificates: Certificates) -> None:
    tls = f'{{ certificate = "{certificates.server}", key = "{certificates.authority}" }}'
    told = await serve_in_vain(with_workers(redis_url, LISTEN__TLS=tls))
    assert ["listen.tls" in line for line in told] == [True]


async def test_one_scrape_shows_all_workers_and_totals_outlive_a_killed_one(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        devices = await crowd(node)
        for _ in range(4):  # the kernel chooses who answers
            assert await node.metric("connections_opened_total", transport="device") == CLIENTS
            assert await node.metric("connections", transport="device", encoding="json") == CLIENTS
            assert await node.metric("workers", state="answering") == WORKERS
        os.kill(pid_of(node, 1), signal.SIGKILL)
        await node.wait_logged("worker_serving", WORKERS + 1)
        assert await node.metric("connections_opened_total") == CLIENTS
        assert await node.metric("connections") == len(devices["w-2"])
        assert await node.metric("service_restarts_total", service="worker") == 1
        assert float((await node.get("/metrics")).partition("\nprocess_start_time_seconds ")[2].split()[0]) > 0


async def test_a_stopped_worker_is_told_of_and_its_totals_stay(redis_url: str) -> None:
    async with running_workers(redis_url) as node:
        devices = await crowd(node)
        assert await node.metric("connections_opened_total") == CLIENTS
        os.kill(pid_of(node, 1), signal.SIGSTOP)
        try:
            told = await scraped_by_one_that_runs(node)
        finally:
            os.kill(pid_of(node, 1), signal.SIGCONT)
        assert f'notifyd_connections_opened_total{{transport="device"}} {CLIENTS}.0' in told
        assert 'notifyd_workers{state="silent"} 1.0' in told
        assert f'notifyd_connections{{encoding="json",transport="device"}} {len(devices["w-2"])}.0' in told


async def scraped_by_one_that_runs(node: NodeProcess) -> str:
    """Ask for the metrics until the kernel chooses a worker that is not stopped."""
    while True:
        with trio.move_on_after(3):
            return await node.get("/metrics")
