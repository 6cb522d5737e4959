"""Clients that all come back at once, each with the position it had: what making them whole costs beside connecting.

The same clients connect and subscribe, once from now on and once from where ten messages are missed, in turns. Each to
a topic of its own, and all to the same; with the embedded broker and over Redis.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.arrivals import REQUEST, Arrival, Load, running_load
from tests.bench.connects import CROWD
from tests.bench.result import Result, compare
from tests.kit.redis_servers import standalone
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import RawDevice, data_frame

MISSED = 10
DATA = {"order": 4711, "state": "paid", "items": [{"sku": "A-100", "count": 2}, {"sku": "B-7", "count": 1}], "n": 1.5}
SHARED = "orders:status"
TARGET = 1 / 1.2
"""Through and whole in the time that the connects take, plus 20 %."""

AT_ONCE = 500
PUBLISHER = CROWD | {"LIMITS__MESSAGES": "{ rate = 1000000, burst = 1000000 }"}


@dataclass(frozen=True)
class Storms:
    """How many clients come back, and how often, for the median."""

    clients: int
    rounds: int

    async def measure(self, name: str, node: NodeProcess, load: Load, target: float | None) -> list[Result]:
        """Let them come back to a node, each to its own topic and all to one."""
        own = [f"order:{number}" for number in range(self.clients)]
        epochs = await _publish(node, [*own, SHARED])
        pid, port = node.process.pid, node.ports["websocket"]
        results = []
        for kind, topics in (("own topics", own), ("one topic", [SHARED] * self.clients)):
            back, new = [_arrival(topic, epochs[topic]) for topic in topics], [_arrival(topic) for topic in topics]
            costs = [
                (await load.cost_us(pid, port, back), await load.cost_us(pid, port, new)) for _ in range(self.rounds)
            ]
            against = f"without positions, {self.clients} clients"
            results.append(compare(f"{name}, {kind}", "us", against, costs, target=target))
        return results


async def measure(*, quick: bool) -> list[Result]:
    """Let the storms come, with the embedded broker, then, if there is time, over Redis."""
    storms = Storms(300, 2) if quick else Storms(10_000, 3)
    async with running_node(PUBLISHER) as node, running_load() as load:
        results = await storms.measure("storm", node, load, TARGET)
    if quick:
        return results
    with standalone(appendonly="no", save="") as server:
        patient = {"BROKER__URL": server.url, "BROKER__TIMEOUT": "5s"}  # Redis shares the clients' core
        async with running_node(PUBLISHER | patient) as node, running_load() as load:
            return results + await Storms(2_000, 3).measure("storm over Redis", node, load, None)


def _arrival(topic: str, epoch: str | None = None) -> Arrival:
    """Connect and subscribe; with an epoch, from its beginning, which is what was missed."""
    since = {} if epoch is None else {"since": {"epoch": epoch, "offset": 0}}
    subscribe = {"op": "subscribe", "id": 2, "topic": topic, **since}
    whole = {} if epoch is None else {'"recovered":true': 1, '"op":"message"': MISSED}
    says = [json.dumps({"op": "connect", "id": 1}), json.dumps(subscribe)]
    return Arrival(REQUEST.format("/ws"), says, {'"op":"subscribed"': 1, **whole})


async def _publish(node: NodeProcess, topics: Sequence[str]) -> dict[str, str]:
    """Publish to each topic what is to be missed; return their epochs."""
    publisher = await RawDevice.connected(node.ports["device"])
    epochs: dict[str, str] = {}
    for _ in range(MISSED):
        for start in range(0, len(topics), AT_ONCE):
            portion = topics[start : start + AT_ONCE]
            requests = ({"op": "publish", "id": 1, "topic": topic, "data": DATA} for topic in portion)
            await publisher.send(b"".join(map(data_frame, requests)))
            for topic in portion:
                answer = await publisher.message()
                assert answer["op"] == "published", answer
                epochs[topic] = answer["epoch"]
    publisher.close()
    return epochs
