"""RELIABILITY row 12: whatever happens to Redis, or to a node of ours, no acknowledged message is lost in silence."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from tests.kit.redis_servers import Cluster, SentinelSet, cluster, sentinel_set, standalone
from tests.kit.tcp_proxy import open_proxy
from tests.reliability.cluster_process import NodeCluster, running_nodes
from tests.reliability.faults import FAULTS, Scene
from tests.reliability.judge import Arrived, Verdict
from tests.reliability.traffic import Plan, Traffic, flowing_traffic
from tests.reliability.witness import Publisher, Witness

BACK_S = 10.0
"""Work resumes within so long of Redis."""

LOSS_WINDOW_S = 1.0
"""What an asynchronous failover may lose: what was acknowledged so shortly before it (spec/delivery.md)."""

LASTS_S = 1.2
"""Longer than the deadline of a command, 0.8 s."""

QUIET_S = 0.5
"""What there is before a fault."""

LONG_S = {"redis_stopped": 10.0, "partition": 30.0}
SEEDS = range(8)
GROUPS = (
    ("redis_killed", "redis_stopped", "clients_killed"),
    ("partition", "node_killed"),
    ("connections_cut", "connections_half_closed", "bytes_delayed"),
    ("connections_dropped", "connections_refused"),
)


@asynccontextmanager
async def _scene(plan: Plan | None = None) -> AsyncIterator[tuple[Scene, Traffic]]:
    """Two nodes, one Redis that has on disk what it acknowledged."""
    with standalone(appendfsync="always") as server:
        async with open_proxy(server.port) as proxy, running_nodes(2, proxy.url) as nodes:
            await nodes.wait_ready()
            async with flowing_traffic(nodes, plan) as traffic:
                yield Scene(server, proxy, nodes), traffic


async def _suffer(scene: Scene, traffic: Traffic, name: str, seconds: float) -> str:
    """One fault; then all goes on, soon. What to report of it."""
    await trio.sleep(QUIET_S)
    refused = len(traffic.refusals)
    await FAULTS[name](scene, seconds)
    resumed_s = await traffic.wait_flowing(BACK_S)
    return f"{name} for {seconds:g} s: {len(traffic.refusals) - refused} refusals, whole {resumed_s:.1f} s after it"


async def _assert_whole(traffic: Traffic, nodes: NodeCluster) -> Verdict:
    """Nothing was lost, so that nothing was to be told either."""
    verdict = await traffic.finish()
    assert verdict.complaints == []
    assert verdict.gaps == 0, "Redis lost nothing: a gap is false"
    assert await traffic.missing_in_history() == []
    nodes.assert_well()
    return verdict


async def _row(names: Sequence[str], lasts: Callable[[str], float], report: Callable[[str], None]) -> None:
    async with _scene() as (scene, traffic):
        for name in names:
            report(f"row 12: {await _suffer(scene, traffic, name, lasts(name))}")
        verdict = await _assert_whole(traffic, scene.nodes)
        report(f"row 12: {', '.join(names)}: {len(traffic.acknowledged)} acknowledged, {verdict}")


@pytest.mark.guard(60)
@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
async def test_nothing_is_lost(names: Sequence[str], report: Callable[[str], None]) -> None:
    await _row(names, lambda _: LASTS_S, report)


@pytest.mark.guard(60)
async def test_what_came_last_before_silence_arrives_too(report: Callable[[str], None]) -> None:
    """Nothing that follows tells that it is missing: the node has to look by itself when its connection is back."""
    with standalone() as server:
        async with open_proxy(server.port) as proxy, running_nodes(2, server.url, proxy.url) as nodes:
            await nodes.wait_ready()
            witnesses = [Witness(f"w{number}", nodes, f"durable:{number}", home=1) for number in range(5)]
            async with trio.open_nursery() as nursery:
                for witness in witnesses:
                    nursery.start_soon(witness.run)
                    await witness.has_begun.wait()
                await _publish_each(nodes, witnesses, "before")
                await FAULTS["connections_cut"](Scene(server, proxy, nodes), 0.1)
                proxy.refuse()
                await _publish_each(nodes, witnesses, "meanwhile")
                proxy.allow()
                began_s = trio.current_time()
                await _wait_heard(witnesses, 4)
                report(f"row 12: the last before silence came {trio.current_time() - began_s:.1f} s after the cut")
                nursery.cancel_scope.cancel()


async def _publish_each(nodes: NodeCluster, witnesses: Sequence[Witness], name: str) -> None:
    """Two messages on each topic, by the node whose connection is whole."""
    async with trio.open_nursery() as nursery:
        for witness in witnesses:
            nursery.start_soon(Publisher(name, nodes, witness.topic).run, 2)


async def _wait_heard(witnesses: Sequence[Witness], count: int) -> None:
    """Wait until each has had so many messages, and nothing else."""
    with trio.fail_after(BACK_S):
        while any(len(witness.account) < 1 + count for witness in witnesses):  # noqa: ASYNC110 - another process
            await trio.sleep(0.01)
    assert all(isinstance(event, Arrived) for witness in witnesses for event in witness.account[1:])


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_lost_when_it_lasts(name: str, report: Callable[[str], None]) -> None:
    await _row([name] * 2, lambda name: LONG_S.get(name, 5.0), report)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_whatever_follows_whatever(seed: int, report: Callable[[str], None]) -> None:
    chance = random.Random(seed)
    names = [chance.choice(list(FAULTS)) for _ in range(12)]
    await _row(names, lambda _: chance.uniform(0.1, 3.0), report)


# --- Redis as a set of servers ----------------------------------------------------------------------------------------


@asynccontextmanager
async def _busy_nodes(
    url: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[NodeCluster, Traffic]]:
    """Two nodes whose traffic has flowed for a moment."""
    async with running_nodes(2, url, settings=settings) as nodes:
        await nodes.wait_ready()
        async with flowing_traffic(nodes) as traffic:
            await trio.sleep(QUIET_S)
            yield nodes, traffic


# --- Sentinel ---------------------------------------------------------------------------------------------------------


async def _fail_over(
    sentinels: SentinelSet, report: Callable[[str], None], *, lag_s: float = 0.0, replicas: int = 0
) -> tuple[int, Verdict]:
    """Kill the primary, its replica `lag_s` behind; how many acknowledged messages were lost, and the verdict."""
    async with _busy_nodes(sentinels.url, {"BROKER__REPLICAS": str(replicas)}) as (nodes, traffic):
        old = sentinels.primary
        if lag_s:
            sentinels.replica.cli("REPLICAOF", "NO", "ONE")
            await trio.sleep(lag_s)
        killed_s = trio.current_time()
        old.kill()
        await trio.to_thread.run_sync(sentinels.wait_failed_over, old)
        failed_over_s = trio.current_time() - killed_s
        resumed_s = await traffic.wait_flowing(BACK_S)
        verdict = await traffic.finish()
        missing = await traffic.missing_in_history()
        window_s = max((killed_s - ack.when_s for ack in missing), default=0.0)
        report(
            f"row 12: primary killed, another one after {failed_over_s:.1f} s, whole {resumed_s:.1f} s later; of "
            f"{len(traffic.acknowledged)} acknowledged {len(missing)} lost, the oldest {window_s * 1000:.0f} ms "
            f"before the kill; {verdict}"
        )
        assert verdict.complaints == []
        assert window_s <= LOSS_WINDOW_S + lag_s
        nodes.assert_well()
        return len(missing), verdict


@pytest.mark.long
async def test_a_failover_loses_no_more_than_its_window_and_says_so(report: Callable[[str], None]) -> None:
    with sentinel_set() as sentinels:
        await _fail_over(sentinels, report)


@pytest.mark.guard(60)
async def test_what_a_failover_loses_is_named(report: Callable[[str], None]) -> None:
    """The replica is cut off before the primary dies, so that it lacks what was acknowledged last."""
    with sentinel_set() as sentinels:
        lost, verdict = await _fail_over(sentinels, report, lag_s=0.4)
        assert lost > 0
        assert verdict.gaps > 0


@pytest.mark.guard(60)
async def test_a_failover_loses_nothing_that_a_replica_confirmed(report: Callable[[str], None]) -> None:
    """The killed primary has to come back as a replica before anything can be confirmed again."""

    async def bring_back(sentinels: SentinelSet) -> None:
        old = sentinels.primary
        while old.is_running:  # noqa: ASYNC110 - a process ends
            await trio.sleep(0.05)
        await trio.to_thread.run_sync(sentinels.wait_failed_over, old)
        await trio.to_thread.run_sync(old.restart)

    with sentinel_set() as sentinels:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring_back, sentinels)
            lost, _ = await _fail_over(sentinels, report, replicas=1)
            assert lost == 0


@pytest.mark.long
async def test_a_primary_that_wakes_up_after_its_failover_deceives_nobody(report: Callable[[str], None]) -> None:
    """It takes itself for the primary until a Sentinel tells it otherwise."""
    with sentinel_set() as sentinels:
        async with _busy_nodes(sentinels.url) as (nodes, traffic):
            old = sentinels.primary
            old.stop_process()
            try:
                await trio.to_thread.run_sync(sentinels.wait_failed_over, old)
            finally:
                old.continue_process()
            resumed_s = await traffic.wait_flowing(BACK_S)
            await trio.to_thread.run_sync(sentinels.wait_ready)
            verdict = await traffic.finish()
            missing = await traffic.missing_in_history()
            report(
                f"row 12: primary stopped until another was: whole {resumed_s:.1f} s after; of "
                f"{len(traffic.acknowledged)} acknowledged {len(missing)} lost; {verdict}"
            )
            assert verdict.complaints == []
            assert missing == []
            nodes.assert_well()


# --- Cluster ----------------------------------------------------------------------------------------------------------


async def _migrate(running: Cluster, traffic: Traffic) -> int:
    """Move every topic's slot to the next master, key by key; how many keys."""
    moved = 0
    for topic in traffic.topics:
        slot = running.slot_of(f"{{{topic}}}")
        source = running.owner(slot)
        target = running.masters[(running.masters.index(source) + 1) % len(running.masters)]
        running.begin_migration(slot, target)
        while count := running.move_keys(slot, target, 1):
            moved += count
            await trio.sleep(0.002)
        running.finish_migration(slot, target)
    return moved


@pytest.mark.guard(60)
async def test_a_slot_moves_and_nothing_is_lost(report: Callable[[str], None]) -> None:
    with cluster() as running:
        async with _busy_nodes(running.url) as (nodes, traffic):
            moved = await _migrate(running, traffic)
            resumed_s = await traffic.wait_flowing(BACK_S)
            verdict = await _assert_whole(traffic, nodes)
            report(
                f"row 12: {len(traffic.topics)} slots of {moved} keys moved under load: {len(traffic.refusals)} "
                f"refusals, whole {resumed_s:.1f} s after; {len(traffic.acknowledged)} acknowledged, {verdict}"
            )


@pytest.mark.long
async def test_a_master_of_a_cluster_is_killed_and_its_replica_goes_on(report: Callable[[str], None]) -> None:
    with cluster(replicas=1) as running:
        async with _busy_nodes(running.url) as (nodes, traffic):
            killed = running.owner(running.slot_of(f"{{{traffic.topics[0]}}}"))
            killed_s = trio.current_time()
            killed.kill()
            await traffic.wait_flowing(BACK_S + 10)
            took_s = trio.current_time() - killed_s
            verdict = await traffic.finish()
            missing = await traffic.missing_in_history()
            report(
                f"row 12: a master of a cluster killed, whole {took_s:.1f} s after; of {len(traffic.acknowledged)} "
                f"acknowledged {len(missing)} lost; {verdict}"
            )
            assert verdict.complaints == []
            assert all(killed_s - ack.when_s <= LOSS_WINDOW_S for ack in missing)
            nodes.assert_well()
