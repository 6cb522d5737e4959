"""The memory of a node after a hundred thousand clients have come and gone, against what it was before."""

from tests.bench.result import Result
from tests.reliability.node_process import running_node
from tests.reliability.soaking import SOAK_SETTINGS, at_rest, let_come_and_go

TARGET = 0.95


async def measure(*, quick: bool) -> list[Result]:
    """Let clients of both transports come, subscribe, and go in the many ways there are."""
    warm_up, clients = (200, 500) if quick else (10_000, 100_000)
    async with running_node(SOAK_SETTINGS) as node:
        await let_come_and_go(node, warm_up, seed=1)
        await at_rest(node)
        before_mb = node.resident_bytes / 1e6
        await let_come_and_go(node, clients, seed=2)
        await at_rest(node)
        after_mb = node.resident_bytes / 1e6
    against = f"before {clients:,} clients came and went"
    return [Result("memory of a node nobody is at", "MB", after_mb, before_mb, against, target=TARGET)]
