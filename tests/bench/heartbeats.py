"""What a heartbeat costs a node: of many device links at once, and of thousands of clients that beat at their pace.

In waves all links PING together, so that the node does nothing but answer; the same waves go to a bare Trio server that
gives back what comes. At their pace clients beat as the protocol has it, and the node PINGs each one every fifth time.
What is told is the serving process's CPU time, the kernel's share included.
"""

import sys

from tests.bench.counterpart import Counterpart, cpu_us, running
from tests.bench.idle import MANY, QUIET_CLIENTS
from tests.bench.result import Result, compare
from tests.reliability.node_process import running_node

TOPIC = "orders:status"
LINKS, QUICK_LINKS = 5000, 500
ROUNDS, QUICK_ROUNDS = 9, 3
WAVES = 4
WAVES_BUDGET_US = 40.0
"""25,000 heartbeats a second on one core."""

BARE_TARGET = 0.35

CLIENTS, INTERVAL_S = 10_000, 30
QUICK_CLIENTS, QUICK_INTERVAL_S = 250, 1
PINGED_EVERY = 5
"""Intervals after which the node has PINGed everybody once."""

CORE_BUDGET_PERCENT = 5.0
BARE = [sys.executable, "-m", "tests.bench.counterparts.trio_echo"]


async def measure(*, quick: bool) -> list[Result]:
    """Let device links beat in waves, a node's and a bare server's in turns; then clients of both kinds at a pace."""
    return [*await _in_waves(quick=quick), await _at_a_pace(quick=quick)]


async def _in_waves(*, quick: bool) -> list[Result]:
    links, count = (QUICK_LINKS, QUICK_ROUNDS) if quick else (LINKS, ROUNDS)
    async with (
        running_node(MANY) as node,
        running(QUIET_CLIENTS) as devices,
        running(BARE) as server,
        running(QUIET_CLIENTS) as bare,
    ):
        await devices.ask("device", node.ports["device"], links, TOPIC)
        await bare.ask("bare", int(server.first_line), links)
        rounds = [
            (await _wave_us(devices, node.process.pid, links), await _wave_us(bare, server.pid, links))
            for _ in range(count)
        ]
    against_bare = compare("heartbeat beside bare Trio", "us", f"echo, {links} links", rounds, target=BARE_TARGET)
    budget = f"budget, {links} links"
    return [Result("heartbeat", "us", against_bare.figure, WAVES_BUDGET_US, budget, target=1.0), against_bare]


async def _wave_us(quiet: Counterpart, pid: int, links: int) -> float:
    began_us = cpu_us(pid)
    await quiet.ask("beat", WAVES)
    return (cpu_us(pid) - began_us) / links / WAVES


async def _at_a_pace(*, quick: bool) -> Result:
    clients, interval_s = (QUICK_CLIENTS, QUICK_INTERVAL_S) if quick else (CLIENTS, INTERVAL_S)
    seconds = interval_s * PINGED_EVERY
    settings = {**MANY, "HEARTBEAT__INTERVAL": f"{interval_s}s"}
    async with running_node(settings) as node, running(QUIET_CLIENTS) as quiet:
        for listener in ("websocket", "device"):
            await quiet.ask(listener, node.ports[listener], clients // 2, TOPIC)
        began_us = cpu_us(node.process.pid)
        await quiet.ask("pace", interval_s, seconds)
        percent = (cpu_us(node.process.pid) - began_us) / seconds / 1e6 * 100
    budget = CORE_BUDGET_PERCENT
    if quick:  # the same budget for each heartbeat
        budget *= clients / CLIENTS * INTERVAL_S / interval_s
    against = f"budget, {clients} clients, {interval_s} s"
    return Result("core kept busy by heartbeats", "%", percent, budget, against, target=1.0)
