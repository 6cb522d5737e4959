"""The memory of a node after a hundred thousand clients have come and gone, against what it was before."""

from tests.bench.result import Result
from tests.reliability.node_process import running_node
from tests.reliability.soaking import SOAK_SETTINGS, soak

TARGET = 0.95


async def measure(*, quick: bool) -> list[Result]:
    """Let clients of both transports come, subscribe, and go in the many ways there are."""
    warm_up, clients = (200, 500) if quick else (10_000, 100_000)
    async with running_node(SOAK_SETTINGS) as node:
        before_bytes, after_bytes = await soak(node, warm_up=warm_up, clients=clients)
    against = f"before {clients:,} clients came and went"
    return [
        Result("memory of a node nobody is at", "MB", after_bytes / 1e6, before_bytes / 1e6, against, target=TARGET)
    ]
