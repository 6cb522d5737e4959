"""SIGHUP: what holds from then on, what needs a restart, and what is refused."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.http_client import HttpClient
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice

pytestmark = pytest.mark.guard(30)

Change = Callable[[str], None]


@asynccontextmanager
async def configured(folder: Path, text: str) -> AsyncIterator[tuple[NodeProcess, Change]]:
    """Run a node on a configuration file; yield it, and what writes another and sends SIGHUP."""
    path = folder / "notifyd.toml"
    path.write_text(text, encoding="utf-8")
    async with running_node(config=path) as node:

        def change(other: str) -> None:
            path.write_text(other, encoding="utf-8")
            node.process.send_signal(signal.SIGHUP)

        yield node, change


async def test_limits_hold_from_the_reload_on(tmp_path: Path) -> None:
    before = '[limits]\nconnections = { limit = 1 }\npayload = "100B"\n'
    async with configured(tmp_path, before) as (node, change):
        held = [await RawDevice.connected(node.ports["device"])]
        refused = await RawDevice.open(node.ports["device"])
        assert await refused.error_code() == 503
        client = HttpClient(node.ports["http"])
        message = {"topic": "a", "data": "x" * 200}
        assert (await client.post("/v1/publish", message)).status == 413

        change('[limits]\nconnections = { limit = 2 }\npayload = "1KiB"\n')
        assert (await node.wait_logged("reloaded"))["needs_restart"] == []
        held.append(await RawDevice.connected(node.ports["device"]))
        refused = await RawDevice.open(node.ports["device"])
        assert await refused.error_code() == 503
        assert (await client.post("/v1/publish", message)).status == 200


async def test_what_was_opened_at_the_start_needs_a_restart(tmp_path: Path) -> None:
    async with configured(tmp_path, "") as (node, change):
        change('[broker]\nprefix = "other"\n[debug]\necho = true\n')
        assert (await node.wait_logged("reloaded"))["needs_restart"] == ["broker", "debug"]


async def test_a_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    async with configured(tmp_path, "") as (node, change):
        change("[limits]\npaylod = 1\n")
        problem = (await node.wait_logged("reload_refused"))["problem"]
        assert problem.endswith("notifyd.toml: limits.paylod: unknown key; the nearest known one is limits.payload")
        message = {"topic": "a", "data": 1}
        assert (await HttpClient(node.ports["http"]).post("/v1/publish", message)).status == 200


async def test_the_log_can_say_more_and_in_other_words(tmp_path: Path) -> None:
    async with configured(tmp_path, "") as (node, change):
        await (await RawDevice.connected(node.ports["device"])).stream.aclose()
        await node.wait_metric("connections_closed_total", 1)
        assert node.events("connection_opened") == []
        change('[log]\nlevel = "debug"\n')
        assert (await node.wait_logged("reloaded"))["needs_restart"] == []
        await (await RawDevice.connected(node.ports["device"])).stream.aclose()
        closed = await node.wait_logged("connection_closed")
        (opened,) = node.events("connection_opened")
        assert opened["connection"] == closed["connection"]
        assert (closed["reason"], closed["transport"]) == ("normal", "device")
