"""A node in which one client's request holds the event loop: metrics, figures and log say who it was."""

import io
import json
import time
from typing import Any

import msgspec
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from notifyd.hub.hub import Hub
from notifyd.node import Node, open_node
from notifyd.settings import Address, Settings
from notifyd.telemetry import Telemetry
from notifyd.telemetry.loop_lag import TOLD_S
from tests.reliability.raw_clients import RawDevice

pytestmark = pytest.mark.guard(30)

STALL_S = TOLD_S + 0.05


def hold_in_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a publish wait for something without giving the loop back, as a name server would be asked."""
    publish = Hub.publish

    async def holds(self: Hub, *arguments: Any, **options: Any) -> Any:
        time.sleep(STALL_S)  # noqa: ASYNC251 - this is the stall
        return await publish(self, *arguments, **options)

    monkeypatch.setattr(Hub, "publish", holds)


def held_s(node: Node) -> dict[str, float]:
    """For how long each service held the loop, as a scrape tells it."""
    families = text_string_to_metric_families(node.telemetry.exposition().decode())
    (family,) = (family for family in families if family.name == "notifyd_loop_held_seconds")
    return {sample.labels["service"]: sample.value for sample in family.samples}


async def test_a_request_that_holds_the_loop_is_told_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    any_port, log = Address("127.0.0.1", 0), io.StringIO()
    settings = Settings.demo()
    listen = msgspec.structs.replace(settings.listen, websocket=None, device=any_port, http=None)
    telemetry = Telemetry("warning", form="json", stream=log)
    async with open_node(msgspec.structs.replace(settings, listen=listen), telemetry=telemetry) as node:
        assert node.device_address is not None
        clients = []
        for _ in range(3):  # one after the other: the last is the newest
            clients.append(await RawDevice.open(node.device_address.port))
            await clients[-1].request({"op": "connect", "id": 1})
        before_s = held_s(node)
        hold_in_publish(monkeypatch)
        reply = await clients[-1].request({"op": "publish", "id": 2, "topic": "a:b", "data": 1})
        await trio.sleep(0.01)
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        newest = max(node.context.connections, key=lambda connection: connection.number)
    assert reply["op"] == "published"
    (line,) = (line for line in lines if line["event"] == "loop_held" and line.get("connection") == newest.id)
    assert line["service"] == "node/listeners/device"
    assert line["task"] == "device connection"
    assert line["at"].startswith("notifyd.")
    assert line["held_s"] >= STALL_S
    assert line["cpu_s"] < line["held_s"]
    assert held_s(node)["device"] >= before_s["device"] + STALL_S
    assert node.lag.worst_s >= STALL_S
