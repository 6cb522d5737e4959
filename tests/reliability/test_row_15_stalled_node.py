"""RELIABILITY row 15: a node stands still until Redis drops its subscription, and goes on."""

from collections.abc import Callable

import pytest
import trio

from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes, stalled
from tests.reliability.traffic import Plan, Traffic, flowing_traffic

BACK_S = 2.0
"""The node has noticed and resubscribed within so long."""

RECOVERED_S = 10.0
"""What the affected topics' clients then get to have read up: some 50 MB."""

DROPPED = "overcoming of output buffer limits"
"""What Redis logs of a subscriber that it drops."""

LIMIT = "pubsub 256kb 0 0"
PLAN = Plan(topics=6, publishers=2, witnesses=2, pause_s=0.002, padding=12_000, settle_s=30)


async def _wait_subscribed(server: RedisServer, wanted: int, seconds: float) -> float:
    """Wait until Redis has so many subscriptions of each topic's channel; how long it took."""
    began_s = trio.current_time()
    counts: list[int] = []
    with trio.move_on_after(seconds):
        while not counts or min(counts) < wanted:
            channels = [name for name in server.cli("PUBSUB", "CHANNELS") if "durable:" in name]
            counts = server.cli("PUBSUB", "NUMSUB", *channels)[1::2]
            await trio.sleep(0.02)
        return trio.current_time() - began_s
    raise AssertionError(f"subscriptions of each topic: {counts}, not {wanted}, after {seconds:g} s")


async def _stall(server: RedisServer, nodes: NodeCluster, traffic: Traffic, seconds: float) -> tuple[float, float]:
    """Stall node 1; how long it took until it was subscribed again, and until its clients had all."""
    dropped = server.log.count(DROPPED)
    async with stalled(nodes[1]):
        await trio.sleep(seconds)
        assert server.log.count(DROPPED) > dropped, "Redis kept the subscription: the stall was too short"
    again_s = await _wait_subscribed(server, 2, BACK_S)
    return again_s, await traffic.wait_flowing(RECOVERED_S)


async def _row(seconds: float, report: Callable[[str], None], *, history: int) -> None:
    topics = f'[{{ match = "durable:**", history = {history}, subscribe = "anyone", publish = "anyone" }}]'
    with standalone(client_output_buffer_limit=LIMIT, appendonly="no") as server:
        async with running_nodes(2, server.url, settings={"TOPICS": topics, "LIMITS__QUEUE": '"16MiB"'}) as nodes:
            await nodes.wait_ready()
            async with flowing_traffic(nodes, PLAN) as traffic:
                again_s, whole_s = await _stall(server, nodes, traffic, seconds)
                verdict = await traffic.finish()
                report(
                    f"row 15: a node stalled for {seconds:g} s over a history of {history}: subscribed again "
                    f"{again_s:.2f} s after, its clients whole after {whole_s:.1f} s; "
                    f"{len(traffic.acknowledged)} acknowledged, {verdict}"
                )
                assert verdict.complaints == []
                assert (verdict.gaps > 0) == (history < 1000)
                assert all(len(witness.connected_s) == 1 for witness in traffic.witnesses)
                nodes.assert_well()


@pytest.mark.measured
@pytest.mark.guard(60)
async def test_a_stalled_node_is_subscribed_again_and_its_topics_recovered(report: Callable[[str], None]) -> None:
    await _row(5.0, report, history=100_000)


@pytest.mark.measured
@pytest.mark.guard(60)
async def test_what_the_history_has_no_more_is_marked(report: Callable[[str], None]) -> None:
    await _row(2.5, report, history=50)
