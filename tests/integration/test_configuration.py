"""The configuration centre of real nodes: in force everywhere within a second, and the same everywhere in the end."""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from notifyd.node import Node
from notifyd.settings import HeartbeatSettings
from tests.http_client import Answer, HttpClient
from tests.kit.memory_node import policy
from tests.kit.redis_node import caller, open_redis_node, opened
from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import Cluster, standalone
from tests.kit.tcp_proxy import open_proxy
from tests.kit.until import until
from tests.reliability.node_process import NodeProcess, running_node

pytestmark = pytest.mark.guard(60)

PATH = "/v1/config"
SOON_S = 1.0
"""In force on every node within it."""

TRIES = 5
"""A busy machine may be late now and then."""


async def patch(node: Node | NodeProcess, body: Any, **headers: str) -> Answer:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await HttpClient(http_port(node)).ask("PATCH", PATH, json.dumps(body).encode(), named)


async def configuration(node: Node | NodeProcess) -> Any:
    return (await HttpClient(http_port(node)).get(PATH)).json


def http_port(node: Node | NodeProcess) -> int:
    if isinstance(node, NodeProcess):
        return node.ports["http"]
    assert node.http_address is not None
    return node.http_address.port


@asynccontextmanager
async def two_nodes(url: str, prefix: str) -> AsyncIterator[tuple[Node, Node]]:
    async with open_redis_node(url, prefix, "n1") as one, open_redis_node(url, prefix, "n2") as two:
        yield one, two


async def assert_followed(one: Node, two: Node) -> None:
    """Change something on one node; the other has it within a second."""
    took_s = []
    for number in range(TRIES):
        answer = await patch(one, {"limits": {"payload": 1000 + number}})
        assert answer.status == 200
        began_s = trio.current_time()
        await until(lambda: two.settings.limits.payload_bytes == one.settings.limits.payload_bytes)
        took_s.append(trio.current_time() - began_s)
        assert two.settings.limits.payload_bytes == 1000 + number
    assert min(took_s) < SOON_S


async def test_a_change_is_in_force_on_every_node_within_a_second(redis_url: str, redis_prefix: str) -> None:
    async with two_nodes(redis_url, redis_prefix) as (one, two):
        await assert_followed(one, two)
        await assert_followed(two, one)
        ada = await caller(two)
        assert (await ada.ask("publish", topic="a:b", data=1))["offset"] == 1
        answer = await patch(one, {"topics": [{"match": "a:*", "publish": "service", "subscribe": "anyone"}]})
        assert (answer.json["stored"], answer.json["settings"]["topics"][0]["publish"]) == (True, "service")
        await until(lambda: two.centre.applied == one.centre.applied)
        assert (await ada.ask("publish", topic="a:b", data=2))["code"] == 403


async def test_so_it_is_in_a_cluster(redis_cluster: Cluster, redis_prefix: str) -> None:
    async with two_nodes(redis_cluster.url, redis_prefix) as (one, two):
        await assert_followed(one, two)


async def test_the_versions_are_the_same_everywhere_and_can_be_gone_back_to(redis_url: str, redis_prefix: str) -> None:
    async with two_nodes(redis_url, redis_prefix) as (one, two):
        await patch(one, {"limits": {"payload": "1KiB"}}, x_author="ada")
        await patch(two, {"limits": {"payload": "2KiB"}}, x_author="bob", if_match="1")
        await HttpClient(http_port(one)).post(f"{PATH}/rollback", {"version": 1})
        await until(lambda: two.centre.applied.version == 3)
        assert two.settings.limits.payload_bytes == 1024
        histories = [(await HttpClient(http_port(node)).get(f"{PATH}/history")).json for node in (one, two)]
        assert histories[0] == histories[1]
        assert [one["author"] for one in histories[0]["versions"]] == ["local", "bob (local)", "ada (local)"]
        assert histories[0]["versions"][0]["restores"] == 1


async def test_of_changes_of_the_same_version_one_wins(redis_url: str, redis_prefix: str) -> None:
    async with two_nodes(redis_url, redis_prefix) as nodes:
        statuses: list[int] = []

        async def change(number: int) -> None:
            body = {"limits": {"payload": 1000 + number}}
            statuses.append((await patch(nodes[number % 2], body, if_match="0")).status)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(change, number)
        assert sorted(statuses) == [200] + 7 * [412]
        await until(lambda: nodes[0].centre.applied == nodes[1].centre.applied)
        assert nodes[0].centre.applied.version == 1


async def test_who_starts_later_has_it_from_the_start(redis_url: str, redis_prefix: str) -> None:
    async with open_redis_node(redis_url, redis_prefix, "n1") as one:
        await patch(one, {"limits": {"payload": "1KiB"}, "heartbeat": {"interval": "40s"}})
        async with open_redis_node(redis_url, redis_prefix, "n2") as two:
            assert two.settings.limits.payload_bytes == 1024
            assert (await (await opened(two)).connect())["heartbeat"] == 40


async def test_who_was_away_catches_up(redis_server: RedisServer, redis_url: str, redis_prefix: str) -> None:
    async with (
        open_proxy(redis_server.port) as proxy,
        open_redis_node(redis_url, redis_prefix, "n1") as one,
        open_redis_node(proxy.url, redis_prefix, "n2") as two,
    ):
        proxy.refuse()
        proxy.cut()
        for payload in ("1KiB", "2KiB"):
            assert (await patch(one, {"limits": {"payload": payload}})).status == 200
        before = await configuration(two)
        assert before["version"] == 0
        refused = await patch(two, {"limits": {"queue": "8KiB"}})
        assert refused.error[:2] == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert await configuration(two) == before
        proxy.allow()
        await until(lambda: two.settings.limits.payload_bytes == 2048)
        assert two.centre.applied == one.centre.applied


async def test_a_store_that_comes_back_empty_is_told_by_its_nodes(redis_prefix: str) -> None:
    with standalone(appendonly="no", save="") as server:
        async with two_nodes(server.url, redis_prefix) as (one, two):
            await patch(one, {"limits": {"payload": "1KiB"}})
            await until(lambda: two.centre.applied.version == 1)
            server.kill()
            server.restart()
            await until(lambda: server.cli("ZCARD", f"{redis_prefix}:configurations:{{{redis_prefix}:control}}") == 1)
            assert two.settings.limits.payload_bytes == 1024
            async with open_redis_node(server.url, redis_prefix, "n3") as three:
                assert three.settings.limits.payload_bytes == 1024


async def test_a_node_that_cannot_take_it_over_keeps_what_it_has_and_says_so(redis_url: str, redis_prefix: str) -> None:
    slow = HeartbeatSettings(interval_s=60.0)
    async with (
        open_redis_node(redis_url, redis_prefix, "n1") as one,
        open_redis_node(redis_url, redis_prefix, "n2", policy("a:*"), heartbeat=slow) as two,
    ):
        await patch(one, {"limits": {"payload": "1KiB"}})
        await until(lambda: two.centre.applied.version == 1)
        assert (await patch(one, {"heartbeat": {"maximum": "50s"}})).status == 200
        await until(lambda: two.centre.newest.version == 2)
        told = await configuration(two)
        assert (told["version"], told["newest"]) == (1, 2)
        assert (
            "heartbeat.interval: 1m is not between heartbeat.minimum (1s) and heartbeat.maximum (50s)"
            in told["problem"]
        )
        assert two.settings.limits.payload_bytes == 1024
        assert await two.problems() == []
        await patch(one, {"heartbeat": None})
        await until(lambda: two.centre.applied.version == 3)
        assert (await configuration(two))["problem"] is None


# --- processes --------------------------------------------------------------------------------------------------------


async def command(node: NodeProcess, *words: str) -> tuple[int, str]:
    """Run `notifyd config` as an operator does."""
    call = [sys.executable, "-c", "from notifyd.cli import main; main()", "config", *words]
    url = f"http://127.0.0.1:{node.ports['http']}"
    done = await trio.run_process([*call, "--url", url], capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_an_operator_changes_settings_and_a_reload_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text('[limits]\npayload = "2KiB"\nqueue = "8KiB"\n')
    async with running_node(config=path) as node:
        told = "version 1 is in force; it is kept in the node alone, until that ends\n"
        assert await command(node, "set", "limits.payload=1KiB", "log.level=debug") == (0, told)
        path.write_text('[limits]\npayload = "3KiB"\nqueue = "9KiB"\n')
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reloaded")
        code, out = await command(node, "get", "limits")
        assert code == 0
        assert 'limits.payload = "1KiB"  # centre\n' in out
        assert 'limits.queue = "9KiB"\n' in out
        code, out = await command(node, "set", "heartbeat.minimum=40s")
        assert (code, "heartbeat.interval: 30s is not between" in out) == (1, True)
        await patch(node, {"limits": {"payload": None}})
        path.write_text('[limits]\npayload = "lots"\n')
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reload_refused")
        assert (await configuration(node))["settings"]["limits"]["payload"] == "3KiB"
        assert not node.events("configuration_refused")


async def test_the_level_of_the_log_changes_at_once(tmp_path: Path) -> None:
    async with running_node() as node:
        assert (await patch(node, {"log": {"level": "error"}})).status == 200
        assert (await patch(node, {"limits": {"payload": "1KiB"}})).status == 200
        assert (await patch(node, {"log": {"level": "info"}})).status == 200
        await node.wait_logged("configured")
        assert [line["version"] for line in node.events("configured")] == [3]


async def test_every_worker_follows_with_its_share(redis_url: str) -> None:
    workers = 2
    environment = {"NODE__WORKERS": str(workers), "NODE__NAME": "w", "BROKER__URL": redis_url}
    async with running_node(environment) as node:
        answer = await patch(node, {"limits": {"connections": {"limit": 10}, "payload": "1KiB"}})
        assert answer.status == 200
        seen: dict[str, Any] = {}

        async def look_around() -> None:
            while len(seen) < workers or any(found["version"] != 1 for found in seen.values()):
                found = await configuration(node)
                seen[found["settings"]["node"]["name"]] = found

        with trio.fail_after(20):
            await look_around()
        assert set(seen) == {"w-1", "w-2"}
        for found in seen.values():
            assert found["settings"]["limits"]["connections"]["limit"] == 5
            assert found["settings"]["limits"]["payload"] == "1KiB"
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reloaded", 1 + workers)
        assert (await configuration(node))["settings"]["limits"]["payload"] == "1KiB"
        assert node.failures == []
