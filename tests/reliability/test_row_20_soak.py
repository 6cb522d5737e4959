"""RELIABILITY row 20 in small: clients that come and go leave nothing behind."""

from collections.abc import Callable

import pytest

from tests.reliability.node_process import running_node, wait_until
from tests.reliability.soaking import SOAK_SETTINGS, at_rest, let_come_and_go

WARM_UP, CONNECTS = 2000, 2000
LONG_WARM_UP, LONG_CONNECTS, LONG_GROWTH = 10_000, 100_000, 0.05
GROWTH_BYTES = 1024
"""What a connect may leave of memory in so short a run, in which the allocator has not settled yet: a tenth of what a
forgotten connection would."""


@pytest.mark.guard(90)
async def test_2000_clients_that_come_and_go_leave_nothing(report: Callable[[str], None]) -> None:
    async with running_node(SOAK_SETTINGS) as node:
        await let_come_and_go(node, WARM_UP, seed=1)
        before, before_bytes = await at_rest(node), node.resident_bytes
        await let_come_and_go(node, CONNECTS, seed=2)
        assert await at_rest(node) == before
        await wait_until(lambda: node.resident_bytes - before_bytes <= GROWTH_BYTES * CONNECTS, 5)
        grown = (node.resident_bytes - before_bytes) / CONNECTS
        report(f"row 20 in small: {CONNECTS} connects, {grown:.0f} bytes each, gauges {before[0]}")
        assert grown <= GROWTH_BYTES
        assert await node.metric("barrier_hits_total") == 0
        assert node.failures == []


@pytest.mark.long
async def test_after_100000_clients_the_memory_is_what_it_was(report: Callable[[str], None]) -> None:
    async with running_node(SOAK_SETTINGS) as node:
        await let_come_and_go(node, LONG_WARM_UP, seed=1)
        before, before_bytes = await at_rest(node), node.resident_bytes
        await let_come_and_go(node, LONG_CONNECTS, seed=2)
        assert await at_rest(node) == before
        ratio = node.resident_bytes / before_bytes
        report(f"row 20: {LONG_CONNECTS} connects, memory {ratio:.3f} times the {before_bytes / 1e6:.1f} MB of before")
        assert abs(ratio - 1) <= LONG_GROWTH
        assert await node.metric("barrier_hits_total") == 0
        assert node.failures == []
