"""RELIABILITY row 13: Redis is away for a while. Nobody is disconnected, nobody waits, nobody is lied to."""

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import trio

from tests.kit.redis_servers import standalone
from tests.kit.tcp_proxy import open_proxy
from tests.reliability.cluster_process import DURABLE, NodeCluster, running_nodes, wait_ready
from tests.reliability.faults import Scene
from tests.reliability.line import Line
from tests.reliability.traffic import Plan, Traffic, flowing_traffic

ANSWERED_S = 1.0
"""A publish to a durable topic is refused within so long."""

BACK_S = 5.0
IDLE_SHARE = 0.05
"""Of one core, while Redis is away."""

LONG_S = 20.0
"""So long an absence shows whether nodes retry in step; at its beginning all waits are short and alike."""

ATTEMPTS = 20
STEP_S = 0.5
"""Attempts closer than this are of different links."""

MOST_GROWTH_BYTES = 32 * 2**20
NOTICED_S = 2.0
"""What the nodes get to find out, before anything is measured."""

PLAN = Plan(topics=2, publishers=2, witnesses=4, pause_s=0.02)
LIVE = 'match = "live:**", history = 0, subscribe = "anyone", publish = "anyone"'
SETTINGS = {"TOPICS": f"[{{ {LIVE} }}, {{ {DURABLE} }}]"}


async def _local_life(nodes: NodeCluster) -> list[Line]:
    """What goes on without Redis: a topic without history, on each node for itself. Its listeners on both nodes."""
    listeners = [await Line.connected(nodes.port(number, "device"), "device") for number in range(2)]
    for listener in listeners:
        reply = await listener.ask({"op": "subscribe", "id": 2, "topic": "live:a"})
        assert reply == {"op": "subscribed", "id": 2, "topic": "live:a", "scope": "node"}
        refused = await listener.ask({"op": "subscribe", "id": 3, "topic": "durable:new"})
        assert (refused["op"], refused["code"]) == ("error", 503)
        assert refused["retry_after"] > 0
    publisher = await Line.connected(nodes.port(0, "device"), "device")
    reply = await publisher.ask({"op": "publish", "id": 2, "topic": "live:a", "data": "here"})
    assert reply == {"op": "published", "id": 2, "topic": "live:a", "scope": "node"}
    with trio.fail_after(1):
        assert (await listeners[0].next())["data"] == "here"
    publisher.close()
    return listeners


async def _assert_reaches_all(nodes: NodeCluster, listeners: list[Line]) -> None:
    """The subscription that was of one node only reaches the other one's publishers now."""
    publisher = await Line.connected(nodes.port(0, "device"), "device")
    with trio.fail_after(BACK_S):
        reply: dict[str, Any] = {"scope": "node"}
        while "scope" in reply:
            reply = await publisher.ask({"op": "publish", "id": 2, "topic": "live:a", "data": "back"})
            await trio.sleep(0.05)
        await publisher.ask({"op": "publish", "id": 3, "topic": "live:a", "data": "for all"})
        for listener in listeners:
            while (await listener.next())["data"] != "for all":
                pass
    for line in (publisher, *listeners):
        line.close()


async def _assert_not_ready(nodes: NodeCluster) -> None:
    for number in range(len(nodes)):
        told = json.loads(await nodes[number].get("/ready"))
        assert told["ready"] is False
        assert all(reason.startswith("the broker: ") for reason in told["reasons"])


async def _idle_share(nodes: NodeCluster, seconds: float) -> float:
    """What the busier node uses of a core meanwhile."""
    before_s, began_s = [nodes[number].cpu_s for number in range(len(nodes))], time.monotonic()
    await trio.sleep(seconds)
    used_s = max(nodes[number].cpu_s - before_s[number] for number in range(len(nodes)))
    return used_s / (time.monotonic() - began_s)


def _assert_jittered(attempts_s: list[float]) -> None:
    """No two attempts to connect are as far apart as many others: that is what nodes in step would do."""
    assert len(attempts_s) >= ATTEMPTS
    apart = [round(later - earlier, 2) for earlier, later in combinations(attempts_s, 2) if later - earlier > STEP_S]
    distance_s, count = Counter(apart).most_common(1)[0]
    assert count <= len(attempts_s) // 3, f"of {len(attempts_s)} attempts, {count} came {distance_s} s after another"


async def _away(scene: Scene, traffic: Traffic, seconds: float) -> tuple[float, int, float]:
    """Take Redis away, whoever connects is dropped; the share of a core, the memory, when it came back."""
    nodes, before = scene.nodes, [scene.nodes[number].resident_bytes for number in range(2)]
    lost = sum(len(client.codes) for client in (*traffic.witnesses, *traffic.publishers))
    scene.proxy.drop()
    scene.proxy.cut()
    cut_s = trio.current_time()
    await trio.sleep(NOTICED_S)
    noticed_s = trio.current_time()
    await _assert_not_ready(nodes)
    listeners = await _local_life(nodes)
    share = await _idle_share(nodes, seconds - NOTICED_S)
    grown = max(nodes[number].resident_bytes - before[number] for number in range(2))
    back_s = trio.current_time()
    assert traffic.acknowledged_between(noticed_s, back_s) == []
    attempts_s = [moment for moment in scene.proxy.accepted_s if moment > cut_s]
    if seconds > LONG_S:
        _assert_jittered(attempts_s)
    scene.proxy.allow()
    for number in range(2):
        await wait_ready(nodes[number], BACK_S)
    await _assert_reaches_all(nodes, listeners)
    await traffic.wait_flowing(BACK_S)
    assert sum(len(client.codes) for client in (*traffic.witnesses, *traffic.publishers)) == lost
    return share, grown, back_s


async def _row(seconds: float, report: Callable[[str], None]) -> None:
    with standalone(appendfsync="always") as server:
        async with open_proxy(server.port) as proxy, running_nodes(2, proxy.url, settings=SETTINGS) as nodes:
            await nodes.wait_ready()
            async with flowing_traffic(nodes, PLAN) as traffic:
                await trio.sleep(0.5)
                share, grown, back_s = await _away(Scene(server, proxy, nodes), traffic, seconds)
                verdict = await traffic.finish()
                slowest_s = max(refusal.took_s for refusal in traffic.refusals)
                report(
                    f"row 13: Redis away for {seconds:g} s: {len(traffic.refusals)} publishes refused, the slowest in "
                    f"{slowest_s * 1000:.0f} ms; {share:.1%} of a core, {grown / 2**20:+.1f} MiB; "
                    f"working {traffic.first_acknowledged_s(back_s) - back_s:.2f} s after its return; {verdict}"
                )
                assert verdict.complaints == []
                assert verdict.gaps == 0
                assert slowest_s <= ANSWERED_S
                assert traffic.first_acknowledged_s(back_s) - back_s <= BACK_S
                assert grown <= MOST_GROWTH_BYTES
                assert share <= IDLE_SHARE


@pytest.mark.measured
@pytest.mark.guard(60)
async def test_redis_away_is_told_and_borne(report: Callable[[str], None]) -> None:
    await _row(4.5, report)


@pytest.mark.long
@pytest.mark.measured
async def test_redis_away_for_60_s_is_told_and_borne(report: Callable[[str], None]) -> None:
    await _row(60.0, report)


@pytest.mark.measured
@pytest.mark.guard(60)
async def test_a_redis_that_only_says_nothing_is_away_too(report: Callable[[str], None]) -> None:
    """A partition: the first publishes wait for the deadline, the others are refused at once."""
    with standalone() as server:
        async with open_proxy(server.port) as proxy, running_nodes(2, proxy.url, settings=SETTINGS) as nodes:
            await nodes.wait_ready()
            async with flowing_traffic(nodes, PLAN) as traffic:
                proxy.stall()
                await trio.sleep(2)
                await _assert_not_ready(nodes)
                proxy.resume()
                back_s = await traffic.wait_flowing(BACK_S)
                verdict = await traffic.finish()
                slowest_s = max(refusal.took_s for refusal in traffic.refusals)
                report(
                    f"row 13: Redis silent for 2 s: {len(traffic.refusals)} publishes refused, the slowest in "
                    f"{slowest_s * 1000:.0f} ms; working {back_s:.2f} s after; {verdict}"
                )
                assert verdict.complaints == []
                assert verdict.gaps == 0
                assert slowest_s <= ANSWERED_S
