"""RELIABILITY row 11: clients that are kicked again and again see every message once, in order."""

import random
from collections.abc import Callable

import pytest
import trio

from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.traffic import Plan, Traffic, flowing_traffic
from tests.reliability.witness import Witness

REST_S = 0.5
"""How long a client that is back is left in peace, at most."""

SMALL = Plan(topics=1, publishers=4, witnesses=100, pause_s=0.01)
FULL = Plan(topics=1, publishers=4, witnesses=100, pause_s=0.004, settle_s=60)


async def _kick(witness: Witness, times: int, chance: random.Random) -> None:
    """Cut a client's connection so many times, each time once it is back."""
    for _ in range(times):
        back = len(witness.connected_s)
        await trio.sleep(chance.uniform(0, REST_S))
        witness.cut()
        with trio.fail_after(30):
            while len(witness.connected_s) == back:  # noqa: ASYNC110 - the witness is busy with its node
                await trio.sleep(0.02)


async def _kicked(nodes: NodeCluster, plan: Plan, times: int, messages: int, seed: int) -> tuple[Traffic, str]:
    chance = random.Random(seed)
    async with flowing_traffic(nodes, plan) as traffic:
        async with trio.open_nursery() as nursery:
            for witness in traffic.witnesses:
                nursery.start_soon(_kick, witness, times, chance)
        while len(traffic.acknowledged) < messages:  # noqa: ASYNC110 - the publishers are busy with their nodes
            await trio.sleep(0.1)
        verdict = await traffic.finish()
        assert verdict.complaints == []
        assert verdict.gaps == 0, "nothing was lost: a gap is false"
        assert all(len(witness.connected_s) > times for witness in traffic.witnesses)
        return traffic, str(verdict)


async def _row(nodes: NodeCluster, plan: Plan, times: int, messages: int, report: Callable[[str], None]) -> None:
    traffic, told = await _kicked(nodes, plan, times, messages, seed=11)
    resumed = sum(witness.resumed for witness in traffic.witnesses)
    report(
        f"row 11: {len(traffic.witnesses)} clients of {len(nodes)} node(s) kicked {times} times each over "
        f"{len(traffic.acknowledged)} messages: {told}; {resumed} sessions resumed"
    )
    assert resumed


@pytest.mark.guard(60)
async def test_kicked_clients_of_one_node_lose_nothing(report: Callable[[str], None]) -> None:
    async with running_nodes(1) as nodes:
        await _row(nodes, SMALL, 4, 400, report)


@pytest.mark.long
async def test_clients_of_one_node_kicked_20_times_over_10000_messages(report: Callable[[str], None]) -> None:
    async with running_nodes(1) as nodes:
        await _row(nodes, FULL, 20, 10_000, report)


@pytest.mark.guard(60)
async def test_kicked_clients_of_two_nodes_lose_nothing(report: Callable[[str], None]) -> None:
    with standalone() as server:
        async with running_nodes(2, server.url) as nodes:
            await nodes.wait_ready()
            await _row(nodes, SMALL, 4, 400, report)


@pytest.mark.long
async def test_clients_of_two_nodes_kicked_20_times_over_10000_messages(report: Callable[[str], None]) -> None:
    with standalone() as server:
        async with running_nodes(2, server.url) as nodes:
            await nodes.wait_ready()
            await _row(nodes, FULL, 20, 10_000, report)
