"""RELIABILITY row 9: a node with many clients is told to go (SIGTERM)."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.kit.redis_servers import standalone
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.line import Line, LineLost, Transport
from tests.reliability.traffic import flowing_traffic
from tests.reliability.witness import Publisher

RESTART = 1012
END_S = 5.0
"""What the process may take beyond its drain window."""

LAG_S = 0.5
"""How long bytes may lie in sockets before this test reads them."""

TOPIC = "durable:drain"
AT_ONCE = 100


class Leaver:
    """A subscriber that stays until it is closed."""

    def __init__(self, transport: Transport) -> None:
        self.transport: Transport = transport
        self.offsets: list[int] = []
        self.told_s: float | None = None
        self.goaway: dict[str, Any] = {}
        self.ended_s = 0.0
        self.code: int | None = None
        self._line: Line | None = None

    async def arrive(self, port: int) -> None:
        self._line = await Line.connected(port, self.transport)
        reply = await self._line.ask({"op": "subscribe", "id": 2, "topic": TOPIC})
        self.offsets.append(reply["offset"])

    async def stay(self) -> None:
        assert self._line is not None
        try:
            while True:
                self._hear(await self._line.next())
        except LineLost as lost:
            self.code, self.ended_s = lost.code, trio.current_time()
        finally:
            self._line.close()

    def _hear(self, push: dict[str, Any]) -> None:
        if push["op"] == "goaway":
            self.told_s, self.goaway = trio.current_time(), push
        else:
            self.offsets.append(push["offset"])


async def _arrive_all(nodes: NodeCluster, leavers: list[Leaver]) -> None:
    waiting = iter(leavers)

    async def let_in() -> None:
        for leaver in waiting:
            await leaver.arrive(nodes.port(0, leaver.transport))

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(let_in)


async def _drain(count: int, window_s: float, pause_s: float, report: Callable[[str], None]) -> None:
    async with running_nodes(1, settings={"NODE__DRAIN": f"{round(window_s)}s"}) as nodes:
        node = nodes[0]
        leavers = [Leaver("device" if number % 2 else "websocket") for number in range(count)]
        publishers = [Publisher(f"p{number}", nodes, TOPIC, pause_s=pause_s) for number in range(4)]
        await _arrive_all(nodes, leavers)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as staying:
                for leaver in leavers:
                    staying.start_soon(leaver.stay)
                for publisher in publishers:
                    nursery.start_soon(publisher.run)
                await trio.sleep(min(1, window_s))
                began_s = trio.current_time()
                node.process.send_signal(signal.SIGTERM)
            assert await node.wait_ended(window_s + END_S - (trio.current_time() - began_s)) == 0
            took_s = trio.current_time() - began_s
            nursery.cancel_scope.cancel()
        _assert_told(leavers, began_s, window_s)
        worst = _worst_second([leaver.ended_s for leaver in leavers])
        _assert_nothing_lost(leavers, publishers)
        acknowledged = sum(len(publisher.acknowledged) for publisher in publishers)
        assert acknowledged > 20
        report(
            f"row 9: {count} clients leave a node within {window_s:g} s: the worst second has "
            f"{worst / (count / window_s):.2f} of the mean, the process ends after {took_s:.1f} s, "
            f"{acknowledged} publishes meanwhile, none lost"
        )
        assert worst <= 2 * count / window_s


def _assert_told(leavers: list[Leaver], began_s: float, window_s: float) -> None:
    for leaver in leavers:
        assert leaver.told_s is not None, "somebody was closed without goaway"
        assert leaver.told_s - began_s < max(1, window_s / 5)
        assert leaver.goaway == {"op": "goaway", "reason": "shutdown", "after": 0.0, "within": window_s}
        assert leaver.code == RESTART


def _worst_second(moments_s: list[float]) -> int:
    """The most that happened within one second, wherever that begins."""
    moments_s = sorted(moments_s)
    most = first = 0
    for last, moment_s in enumerate(moments_s):
        while moments_s[first] < moment_s - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def _assert_nothing_lost(leavers: list[Leaver], publishers: list[Publisher]) -> None:
    """Each got everything in order up to its end: all that was acknowledged before it, and no hole."""
    acknowledged = sorted(
        (ack for publisher in publishers for ack in publisher.acknowledged), key=lambda ack: ack.when_s
    )
    assert len({ack.position.offset for ack in acknowledged}) == len(acknowledged)
    for leaver in leavers:
        assert leaver.offsets[-1] > leaver.offsets[0], "somebody got no message at all"
        assert leaver.offsets == list(range(leaver.offsets[0], leaver.offsets[-1] + 1))
        before = [ack.position.offset for ack in acknowledged if ack.when_s < leaver.ended_s - LAG_S]
        assert max(before, default=0) <= leaver.offsets[-1]


def test_the_worst_second_is_found_wherever_it_begins() -> None:
    assert _worst_second([0.0, 0.9, 1.2, 1.8, 3.0]) == 3
    assert _worst_second([]) == 0


@pytest.mark.guard(60)
async def test_clients_leave_one_after_the_other_and_lose_nothing(report: Callable[[str], None]) -> None:
    await _drain(500, 3.0, 0.05, report)


@pytest.mark.long
@pytest.mark.measured
async def test_5000_clients_leave_one_after_the_other_and_lose_nothing(report: Callable[[str], None]) -> None:
    await _drain(5000, 30.0, 0.5, report)


@pytest.mark.guard(60)
async def test_clients_that_leave_find_everything_on_another_node(report: Callable[[str], None]) -> None:
    """Of two nodes over one Redis one is told to go, its publishers and subscribers busy."""
    with standalone() as server:
        async with running_nodes(2, server.url, settings={"NODE__DRAIN": "2s"}) as nodes:
            await nodes.wait_ready()
            async with flowing_traffic(nodes) as traffic:
                nodes[0].process.terminate()
                assert await nodes[0].wait_ended(2 + END_S) == 0
                await nodes.restart(0)
                verdict = await traffic.finish()
                moved = sum(len(witness.connected_s) > 1 for witness in traffic.witnesses)
                report(f"row 9: {moved} of {len(traffic.witnesses)} subscribers left a node for another: {verdict}")
                assert verdict.complaints == []
                assert verdict.gaps == 0
                assert await traffic.missing_in_history() == []
                assert moved >= len(traffic.witnesses) // 2
                assert all(code in (RESTART, None) for witness in traffic.witnesses for code in witness.codes)
