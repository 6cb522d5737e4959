"""`notifyd bench` against a real node: every scenario in every form, its counts held against those of the node."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from notifyd.bench import crew
from notifyd.bench.load import Load, Scenario
from notifyd.bench.own_node import DEFAULTS
from notifyd.bench.report import LoadReport, Sample
from notifyd.bench.running import run_load
from notifyd.errors import NotifydError
from tests.certificates import Certificates, certificates
from tests.kit.pty_program import ENVIRONMENT, NOTIFYD
from tests.kit.tcp_proxy import open_proxy
from tests.reliability.cluster_process import running_nodes
from tests.reliability.node_process import NodeProcess, running_node, started_node

__all__ = ["certificates"]

pytestmark = pytest.mark.guard(60)

FORMS = [(transport, encoding) for transport in ("websocket", "device") for encoding in ("json", "msgpack")]
CLIENTS = 12
MISSED = 5


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    settings = {key.replace(".", "__").upper(): value for key, value in DEFAULTS.items() if key.startswith("limits.")}
    with started_node(settings) as running:
        yield running


def url_of(node: NodeProcess, transport: str) -> str:
    return f"ws://127.0.0.1:{node.ports['websocket']}" if transport == "websocket" else device_url(node)


def device_url(node: NodeProcess) -> str:
    return f"device://127.0.0.1:{node.ports['device']}"


async def run_in_every_form(node: NodeProcess, scenario: Scenario, **asked: Any) -> list[LoadReport]:
    """Run a load over both transports in both encodings, all at once."""
    reports: list[LoadReport] = []

    async def run(transport: str, encoding: Any) -> None:
        load = Load(
            scenario=scenario,
            url=url_of(node, transport),
            encoding=encoding,
            **{"connections": CLIENTS, "processes": 1, "seconds": 0.15, "warm_up_s": 0.0, **asked},
        )
        reports.append(await run_load(load))

    async with trio.open_nursery() as nursery:
        for transport, encoding in FORMS:
            nursery.start_soon(run, transport, encoding)
    for report in reports:
        assert (report.scenario, report.errors) == (scenario.value, {})
        assert report.rate == pytest.approx(report.operations / report.seconds)
    assert any(report.latency is not None for report in reports)
    return reports


def operations_of(reports: list[LoadReport]) -> int:
    return sum(report.operations for report in reports)


async def test_connect(node: NodeProcess) -> None:
    before = await node.metric("connections_opened_total")
    reports = await run_in_every_form(node, Scenario.CONNECT)
    assert [report.operations for report in reports] == [CLIENTS] * 4
    assert await node.metric("connections_opened_total") - before == 4 * CLIENTS


async def test_connect_at_a_rate(node: NodeProcess) -> None:
    (report, *_) = await run_in_every_form(node, Scenario.CONNECT, rate=100.0)
    assert report.seconds >= (CLIENTS - 1) / 100


@pytest.mark.parametrize(
    ("scenario", "asked"),
    [(Scenario.FANOUT, {}), (Scenario.TOPICS, {"publishers": 2}), (Scenario.FANOUT, {"rate": 40})],
)
async def test_deliveries(node: NodeProcess, scenario: Scenario, asked: dict[str, Any]) -> None:
    before = await node.metric("messages_delivered_total")
    reports = await run_in_every_form(node, scenario, processes=2, **asked)
    assert operations_of(reports) == await node.metric("messages_delivered_total") - before
    if not asked.get("rate"):
        assert sum(count for report in reports for _, count in report.histogram) > operations_of(reports) / 2


@pytest.mark.parametrize("asked", [{"in_flight": 3}, {"rate": 200.0}])
async def test_publish(node: NodeProcess, asked: dict[str, Any]) -> None:
    before = await node.metric("messages_published_total")
    reports = await run_in_every_form(node, Scenario.PUBLISH, topics=3, **asked)
    assert operations_of(reports) == await node.metric("messages_published_total") - before
    assert sum(count for report in reports for _, count in report.histogram) == operations_of(reports)


async def test_heartbeats_stay_below_what_a_server_takes_for_a_flood(node: NodeProcess) -> None:
    reports = await run_in_every_form(node, Scenario.HEARTBEATS, connections=2)
    assert all(report.operations <= 2 * (report.seconds + 0.5) * 90 for report in reports)


async def test_idle(node: NodeProcess) -> None:
    reports = await run_in_every_form(node, Scenario.IDLE, heartbeat_s=1.0, seconds=0.3)
    assert all(report.operations <= CLIENTS for report in reports)


async def test_recovery(node: NodeProcess) -> None:
    names = ("messages_replayed_total", "recoveries_total")
    before = [await node.metric(name) for name in names]
    reports = await run_in_every_form(node, Scenario.RECOVERY, missed=MISSED, topics=3, publishers=2)
    assert [report.operations for report in reports] == [CLIENTS] * 4
    after = [await node.metric(name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [4 * CLIENTS * MISSED, 4 * CLIENTS]
    assert all({"connect", "recover"} <= report.phases.keys() for report in reports)


async def test_a_server_s_pings_are_answered_while_messages_are_only_counted(node: NodeProcess) -> None:
    """With a heartbeat of a second, the node has the load answer a PING every second."""
    before = await node.metric("round_trip_seconds_count")
    load = Load(
        scenario=Scenario.FANOUT, url=url_of(node, "websocket"), connections=2, processes=1, rate=20.0,
        heartbeat_s=1.0, seconds=1.2, warm_up_s=0.0,
    )  # fmt: skip
    assert (await run_load(load)).errors == {}
    assert await node.metric("round_trip_seconds_count") > before


async def test_a_node_of_its_own_with_what_it_uses() -> None:
    samples: list[Sample] = []
    load = Load(
        scenario=Scenario.PUBLISH, connections=5, processes=1, seconds=0.6, settings={"limits.payload": '"2KiB"'}
    )
    report = await run_load(load, on_sample=samples.append)
    assert report.samples == samples
    assert {"measure"} <= {sample.phase for sample in samples}
    assert report.server_cpu is not None
    assert report.server_cpu > 0.01
    assert (report.server_memory_bytes or 0) > 10_000_000
    assert report.options["limits.payload"] == '"2KiB"'


async def test_what_a_remote_node_uses_is_read_from_its_metrics(node: NodeProcess) -> None:
    http = f"http://127.0.0.1:{node.ports['http']}"
    load = Load(scenario=Scenario.IDLE, url=url_of(node, "device"), http=http, connections=1, processes=1, seconds=0.1)
    assert ((await run_load(load)).server_memory_bytes or 0) > 10_000_000
    for unreachable in ("http://127.0.0.1:1", "https://127.0.0.1:1", "http://127.0.0.1:port"):
        with pytest.raises(NotifydError, match=f"no answer from {unreachable}/metrics"):
            await run_load(msgspec.structs.replace(load, http=unreachable))


async def test_a_node_with_api_keys_tells_who_shows_one() -> None:
    async with running_node({"AUTH__API_KEYS": '["a key that is long enough for one"]'}) as node:
        http = f"http://127.0.0.1:{node.ports['http']}"
        load = Load(
            scenario=Scenario.IDLE, url=url_of(node, "device"), http=http, connections=1, processes=1, seconds=0.1
        )
        with pytest.raises(NotifydError, match=r"wants one of the node's API keys: give --api-key"):
            await run_load(load)
        shown = msgspec.structs.replace(load, api_key="a key that is long enough for one")
        assert ((await run_load(shown)).server_memory_bytes or 0) > 10_000_000


async def test_given_too_few_descriptors_it_says_so(node: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_COMMAND", ("sh", "-c", f"ulimit -n 40; exec {sys.executable} -m notifyd.bench.worker"))
    report = await run_load(Load(scenario=Scenario.CONNECT, url=url_of(node, "device"), connections=100, processes=1))
    assert report.saturated == "a load process ran out of descriptors: raise `ulimit -n`"
    assert 0 < report.operations < 40
    assert report.errors == {"too many open files": 100 - report.operations}


async def test_a_node_that_takes_nobody_is_no_load(node: NodeProcess) -> None:
    load = Load(scenario=Scenario.FANOUT, url="device://127.0.0.1:1", connections=3, processes=1)
    with pytest.raises(NotifydError, match=r"none of the connections .* could be opened: refused \(5 times\)"):
        await run_load(load)


async def test_a_setting_that_is_none_is_said_by_the_node() -> None:
    with pytest.raises(NotifydError, match=r"its own node ended: NOTIFYD_LIMITS__FOO: limits.foo: unknown key"):
        await run_load(Load(scenario=Scenario.CONNECT, settings={"limits.foo": "3"}))


def children_of(pid: int) -> list[int]:
    """The processes that any of its threads has started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in threads for child in children.read_text().split()]


def test_ctrl_c_ends_it_with_what_was_measured_and_leaves_nothing() -> None:
    command = [*NOTIFYD, "bench", "fanout", "--seconds", "50", "--connections", "5", "--processes", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        try:
            while b" measure " not in process.stderr.readline():
                assert process.poll() is None
            children = children_of(process.pid)
            process.send_signal(signal.SIGINT)
            report = process.stdout.read().decode()
            assert process.wait() == 0
        finally:
            process.kill()
    assert len(children) == 3
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert re.search(r"^deliveries +[1-9]", report, re.MULTILINE)


async def test_over_tls(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    tls = f'{{ certificate = "{certificates.server}", key = "{certificates.server_key}" }}'
    with started_node({"LISTEN__TLS": tls, "LIMITS__MESSAGES": DEFAULTS["limits.messages"]}) as node:
        urls = (f"wss://127.0.0.1:{node.ports['websocket']}", f"device+tls://127.0.0.1:{node.ports['device']}")
        for url in urls:
            load = Load(scenario=Scenario.FANOUT, url=url, connections=5, processes=1, seconds=0.2, warm_up_s=0.0)
            before = await node.metric("messages_delivered_total")
            report = await run_load(load)
            assert (report.errors, report.saturated) == ({}, None)
            assert report.operations == await node.metric("messages_delivered_total") - before > 0
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(NotifydError, match=r"could be opened: TLS: certificate verify failed"):
            await run_load(load)


async def test_recovery_from_a_node_that_was_killed(redis_url: str) -> None:
    """What connects to the proxy gets the node that runs: one that is started again has other ports in these tests."""
    async with (
        running_nodes(1, redis_url) as nodes,
        open_proxy(nodes.port(0, "websocket")) as proxy,
        trio.open_nursery() as nursery,
    ):
        waits = trio.Event()

        async def kill_and_restart() -> None:
            await waits.wait()
            await nodes.kill(0)
            await nodes.restart(0)
            proxy.server_port = nodes.port(0, "websocket")

        nursery.start_soon(kill_and_restart)
        url = f"ws://127.0.0.1:{proxy.port}"
        load = Load(scenario=Scenario.RECOVERY, url=url, connections=5, processes=1, cut="server")
        report = await run_load(load, on_sample=lambda sample: waits.set() if sample.phase == "cut" else None)
    assert report.operations == 5
    assert report.errors.keys() <= {"refused", "reset", "closed", "503 unavailable", "HTTP 503"}
    assert report.phases["cut"] > 0


async def test_many_clients_come_from_several_addresses_of_loopback(
    node: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from notifyd.bench import links, worker; links._LINKS_A_SOURCE = 4; worker.run_worker_process()"
    monkeypatch.setattr(crew, "_COMMAND", (sys.executable, "-c", program))
    load = Load(scenario=Scenario.IDLE, url=url_of(node, "device"), connections=10, processes=1, seconds=50.0)
    hosts: Counter[str] = Counter()
    interrupted = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_load, load, interrupted=interrupted))
        while hosts.total() < 10:
            connections = json.loads(await node.get("/v1/connections"))["connections"]
            hosts = Counter(connection["address"].rpartition(":")[0] for connection in connections)
        interrupted.set()
    assert hosts == {"127.0.0.1": 4, "127.0.0.2": 4, "127.0.0.3": 2}


def test_killed_it_leaves_nothing() -> None:
    command = [*NOTIFYD, "bench", "idle", "--seconds", "50", "--connections", "2", "--processes", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        while b" measure " not in process.stderr.readline():
            assert process.poll() is None
        children = children_of(process.pid)
        process.kill()
    assert len(children) == 3
    while any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.02)  # the guard ends the test that waits in vain
