"""One topic, many subscribers, published to as fast as accepted: notifyd beside what else there is, on one core each.

Counterparts are the Centrifuge library (Go) and `broadcast` of `websockets` (Python), which keeps no history. The
readers are one process of epoll clients that count what they get. notifyd is published to by clients, over the wire.
"""

import sys
from collections.abc import Sequence
from statistics import median

import trio

from notifyd.bench.load import Load, Scenario
from notifyd.bench.running import run_load
from tests.bench import centrifuge
from tests.bench.counterpart import COUNTERPARTS, Counterpart, running
from tests.bench.result import Result

PAYLOAD_BYTES = 150


async def measure(*, quick: bool) -> list[Result]:
    """Take the rates in turns. Centrifuge is left out where there is no Go to build it with, and of what is quick."""
    connections, messages, rounds = (250, 500, 1) if quick else (1000, 1000, 3)
    rates: dict[str, list[float]] = {"notifyd": [], "websockets": [], "Centrifuge": []}
    for _ in range(rounds):
        rates["notifyd"].append(await _of_notifyd(connections, 1.0 if quick else 4.0))
        rates["websockets"].append(await _of_websockets(connections, messages // 2))
        if centrifuge.can_be_built() and not quick:
            rates["Centrifuge"].append(await _of_centrifuge(connections, messages))
    ours = median(rates.pop("notifyd"))
    against = f"{connections} clients, {PAYLOAD_BYTES} bytes"
    return [
        Result(
            f"delivery, as fast as accepted, beside {name}",
            "us",
            1e6 / ours,
            1e6 / median(theirs),
            f"{name}, {against}",
            target=1.0,
        )
        for name, theirs in rates.items()
        if theirs
    ]


async def _of_notifyd(connections: int, seconds: float) -> float:
    load = Load(scenario=Scenario.FANOUT, connections=connections, seconds=seconds, payload_bytes=PAYLOAD_BYTES)
    report = await run_load(load, on_sample=lambda _: None)
    assert not report.errors, report.errors
    return report.rate


async def _of_websockets(connections: int, messages: int) -> float:
    async with running([sys.executable, COUNTERPARTS / "websocket_broadcast.py"]) as server:
        return await _rate(server, ("/", connections, '{"pub'), messages)


async def _of_centrifuge(connections: int, messages: int) -> float:
    readers = (centrifuge.PATH, connections, '"pub"', *centrifuge.DIALOGUE)
    async with centrifuge.running_centrifuge() as server:
        return await _rate(server, readers, messages)


async def _rate(server: Counterpart, readers: Sequence[object], messages: int) -> float:
    """Return the deliveries a second of a server whose first line was its port."""
    path, connections, *rest = readers
    command = [sys.executable, "-m", "tests.bench.field_readers", int(server.first_line), path, connections, *rest]
    deliveries = messages * int(str(connections))
    async with running(command) as clients, trio.open_nursery() as nursery:
        nursery.start_soon(server.ask, messages, PAYLOAD_BYTES, 0)
        return deliveries / float(await clients.ask(deliveries))
