"""RELIABILITY row 10: a node is killed with all its clients, and started again."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime

import pytest
import trio

from protocol.backoff import CAP_S
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.node_process import NodeProcess
from tests.reliability.traffic import Plan, Traffic, flowing_traffic

BACK_S = 60.0
MOST_SHARE = 0.15
"""Of all connects, in one second."""

MOST_GROWTH = 1.5
TELLING = {"LOG__LEVEL": "debug"}
"""The node's log then tells when each client came in."""

SMALL = Plan(topics=20, publishers=1, witnesses=20, pause_s=0.5, most_wait_s=CAP_S)
FULL = Plan(topics=50, publishers=1, witnesses=100, pause_s=2.0, most_wait_s=CAP_S, settle_s=60)


def _connects_by_second(node: NodeProcess) -> Counter[int]:
    """When the node let its clients in, as its log says: this process is too busy with them to tell."""
    connected_s = [
        datetime.fromisoformat(line["timestamp"]).timestamp() for line in node.events("connection_connected")
    ]
    return Counter(int(at_s - min(connected_s)) for at_s in connected_s)


async def _all_back(nodes: NodeCluster, traffic: Traffic) -> tuple[float, float, Counter[int]]:
    """Kill and restart; how long it took until all were whole, the most memory meanwhile, connects by the second."""
    await nodes.kill(0)
    peak_bytes, back = 0, trio.Event()
    began_s = trio.current_time()
    await nodes.restart(0)

    async def look() -> None:
        nonlocal peak_bytes
        while not back.is_set():
            peak_bytes = max(peak_bytes, nodes[0].resident_bytes)
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await traffic.wait_flowing(BACK_S)
        took_s = trio.current_time() - began_s
        await trio.sleep(1)
        back.set()
    return took_s, peak_bytes, _connects_by_second(nodes[0])


async def _restart(plan: Plan, report: Callable[[str], None], *broker_urls: str) -> float:
    """The row; the share of the connects in the worst second. With a Redis nothing is lost; the embedded broker's
    history ends with its process, and everybody is told."""
    async with running_nodes(1, *broker_urls, settings=TELLING) as nodes, flowing_traffic(nodes, plan) as traffic:
        await trio.sleep(2)
        steady_bytes = nodes[0].resident_bytes
        took_s, peak_bytes, by_second = await _all_back(nodes, traffic)
        verdict = await traffic.finish()
        share = max(by_second.values()) / sum(by_second.values())
        report(
            f"row 10: {len(traffic.witnesses)} clients of a killed node whole {took_s:.1f} s after its restart began; "
            f"{share:.0%} of the connects in the worst second ({dict(by_second)}); "
            f"memory {peak_bytes / steady_bytes:.2f} of before; {verdict}"
        )
        assert verdict.complaints == []
        assert verdict.gaps == (0 if broker_urls else len(traffic.witnesses))
        assert sum(by_second.values()) >= len(traffic.witnesses)
        assert peak_bytes <= MOST_GROWTH * steady_bytes
    return share


@pytest.mark.guard(120)
async def test_all_clients_of_a_killed_node_are_back_and_whole(report: Callable[[str], None]) -> None:
    """With so few, nobody need be held back."""
    await _restart(SMALL, report)


@pytest.mark.guard(120)
async def test_with_a_redis_nothing_is_lost_either(report: Callable[[str], None]) -> None:
    with standalone() as server:
        await _restart(SMALL, report, server.url)


@pytest.mark.long
@pytest.mark.measured
@pytest.mark.parametrize("shared", [False, True], ids=["embedded", "redis"])
async def test_5000_clients_of_a_killed_node_come_back_spread_out(shared: bool, report: Callable[[str], None]) -> None:
    with standalone() if shared else nullcontext() as server:
        assert await _restart(FULL, report, *([server.url] if server else [])) <= MOST_SHARE
