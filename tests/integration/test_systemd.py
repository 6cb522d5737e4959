"""A node and its service manager: a socket of the test's own in place of systemd's, and a real `notifyd serve`."""

import configparser
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from notifyd.cli.service_manager import STOP_MARGIN_S
from notifyd.settings import Settings
from tests.kit.notify_socket import NotifySocket
from tests.reliability.node_process import running_node, started_node, wait_until

pytestmark = pytest.mark.guard(60)

UNIT = Path(__file__).parents[2] / "spec" / "systemd" / "notifyd.service"
BEAT_S = 0.1
SEVERAL_BEATS_S = 10 * BEAT_S


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    """Hears what every node says that is started while it is there."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@notifyd-test-{uuid.uuid4().hex}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with NotifySocket(name) as listening:
        yield listening


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the service manager want a beat."""
    monkeypatch.setenv("WATCHDOG_USEC", str(int(2 * BEAT_S * 1_000_000)))


async def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T")


async def test_it_hears_of_the_whole_life_of_a_node(manager: NotifySocket) -> None:
    with started_node({"NODE__DRAIN": "100ms"}) as node:
        assert await manager.hear() == {"READY": "1", "STATUS": "serving"}
        before_us = time.monotonic_ns() // 1000
        node.process.send_signal(signal.SIGHUP)
        assert before_us <= int(await manager.wait_for("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert await manager.hear() == {"READY": "1"}
        assert len(node.events("reloaded")) == 1
        node.process.send_signal(signal.SIGTERM)
        longest_us = str(int((0.1 + STOP_MARGIN_S) * 1_000_000))
        assert await manager.hear() == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": longest_us, "STATUS": "draining"}
        assert await node.wait_ended() == 0
        assert manager.forget() == 0, "it beats though nobody asked for that"
        assert manager.senders == {node.process.pid}


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_a_refused_reload_ends_too(manager: NotifySocket, tmp_path: Path) -> None:
    config = tmp_path / "notifyd.toml"
    config.write_text("")
    async with running_node(config=config) as node:
        await manager.wait_for("READY")
        config.write_text("[nothing]")
        node.process.send_signal(signal.SIGHUP)
        await manager.wait_for("RELOADING")
        await manager.wait_for("READY")
        assert len(node.events("reload_refused")) == 1


async def test_a_node_that_hangs_beats_no_more(manager: NotifySocket, watchdog: None) -> None:
    async with running_node() as node:
        assert await manager.wait_for("WATCHDOG") == "1"
        assert (await manager.hear())["STATUS"] == "serving, connections: 0"
        await freeze(node.process.pid)
        manager.forget()
        await trio.sleep(SEVERAL_BEATS_S)
        assert manager.forget() == 0
        node.process.send_signal(signal.SIGCONT)
        assert await manager.wait_for("WATCHDOG") == "1"


@pytest.mark.parametrize("manager", ["path"], indirect=True)
async def test_workers_beat_together_and_not_while_one_hangs(
    manager: NotifySocket, watchdog: None, redis_url: str
) -> None:
    settings = {"NODE__WORKERS": "2", "NODE__NAME": "w", "BROKER__URL": redis_url}
    with started_node(settings) as node:
        assert await manager.hear() == {"READY": "1", "STATUS": "serving, workers: 2"}
        assert await manager.wait_for("WATCHDOG") == "1"
        node.process.send_signal(signal.SIGHUP)
        await manager.wait_for("RELOADING")
        await manager.wait_for("READY")
        frozen, killed = [line["process"] for line in node.events("worker_serving")]
        await freeze(frozen)
        await trio.sleep(SEVERAL_BEATS_S)  # the one beat that was under way
        manager.forget()
        await trio.sleep(SEVERAL_BEATS_S)
        assert manager.forget() == 0
        os.kill(frozen, signal.SIGCONT)
        assert await manager.wait_for("WATCHDOG") == "1"
        os.kill(killed, signal.SIGKILL)
        await node.wait_logged("worker_serving", 3)
        manager.forget()
        assert await manager.wait_for("WATCHDOG") == "1"
        node.process.send_signal(signal.SIGTERM)
        await manager.wait_for("STOPPING")
        assert await node.wait_ended() == 0
        assert manager.senders == {node.process.pid}, "a worker spoke for itself"


# --- the unit ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as an operator installs it, with a program that is there."""
    installed = tmp_path / "notifyd.service"
    text = UNIT.read_text()
    assert "/opt/notifyd/bin/notifyd" in text
    installed.write_text(text.replace("/opt/notifyd/bin/notifyd", sys.executable))
    return installed


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    found = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (found.returncode, [line for line in found.stderr.splitlines() if unit.name in line]) == (0, [])


@needs_systemd
def test_it_exposes_little(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-500:]


def test_its_times_and_limits_fit_the_defaults_of_a_node() -> None:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(UNIT)
    service, default = parsed["Service"], Settings()
    assert service["Type"] == "notify"
    assert float(service["TimeoutStopSec"]) >= default.node.drain_s + STOP_MARGIN_S
    assert int(service["LimitNOFILE"]) > default.limits.connections.limit
    assert service["ExecReload"].endswith("kill -HUP $MAINPID")
