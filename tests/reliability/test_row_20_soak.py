"""RELIABILITY row 20 in small: clients that come and go leave nothing behind."""

from collections.abc import Callable

import pytest

from tests.reliability.node_process import running_node, wait_until
from tests.reliability.soaking import SOAK_SETTINGS, soak

WARM_UP, CONNECTS = 2000, 2000
LONG_WARM_UP, LONG_CONNECTS, LONG_GROWTH = 10_000, 100_000, 0.05
GROWTH_BYTES = 1024
"""What a connect may leave of memory in so short a run, in which the allocator has not settled yet: a tenth of what a
forgotten connection would."""


@pytest.mark.guard(90)
async def test_2000_clients_that_come_and_go_leave_nothing(report: Callable[[str], None]) -> None:
    async with running_node(SOAK_SETTINGS) as node:
        before_bytes, _ = await soak(node, warm_up=WARM_UP, clients=CONNECTS)
        await wait_until(lambda: node.resident_bytes - before_bytes <= GROWTH_BYTES * CONNECTS, 5)
        grown = (node.resident_bytes - before_bytes) / CONNECTS
        report(f"row 20 in small: {CONNECTS} connects, {grown:.0f} bytes each")
        assert grown <= GROWTH_BYTES


@pytest.mark.long
async def test_after_100000_clients_the_memory_is_what_it_was(report: Callable[[str], None]) -> None:
    async with running_node(SOAK_SETTINGS) as node:
        before_bytes, after_bytes = await soak(node, warm_up=LONG_WARM_UP, clients=LONG_CONNECTS)
        ratio = after_bytes / before_bytes
        report(f"row 20: {LONG_CONNECTS} connects, memory {ratio:.3f} times the {before_bytes / 1e6:.1f} MB of before")
        assert abs(ratio - 1) <= LONG_GROWTH
