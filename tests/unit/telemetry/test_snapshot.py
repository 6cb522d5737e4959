"""Snapshots add up as the processes that they were taken of would have counted together, whatever dies in between."""

import io
from collections.abc import Sequence

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.cli.workers.figures import TELL_S, NodeFigures, WorkerFigures
from notifyd.telemetry import Telemetry
from notifyd.telemetry.exposition import write_exposition
from notifyd.telemetry.snapshot import NOTHING, Snapshot, combined, lasting

DELIVERED = "messages_delivered"

COUNTS = st.lists(st.integers(0, 1000), max_size=4)


def counting(counts: Sequence[int], *, topics: int = 0) -> Telemetry:
    telemetry = Telemetry("error", stream=io.StringIO())
    for count in counts:
        telemetry.count(DELIVERED, count)
        telemetry.count("overflows", policy="gap")
        telemetry.observe("delivery_latency_seconds", count / 1000, count)
    telemetry.show("topics", lambda: topics)
    telemetry.show("loop_lag_max_seconds", lambda: float(topics))
    return telemetry


def delivered(snapshot: Snapshot) -> float:
    return snapshot.counters.get(DELIVERED, {}).get((), 0)


@given(st.lists(COUNTS, max_size=4))
def test_counters_and_histograms_add_up(processes: list[list[int]]) -> None:
    whole = combined(counting(counts).snapshot() for counts in processes)
    alone = counting([count for counts in processes for count in counts]).snapshot()
    if processes:
        assert whole.counters == alone.counters | {"log_lines": whole.counters["log_lines"]}
        for name, spreads in alone.histograms.items():
            for series, spread in spreads.items():
                assert whole.histograms[name][series].counts == spread.counts
                assert whole.histograms[name][series].sum == pytest.approx(spread.sum)


def test_gauges_add_up_or_the_worst_one_counts() -> None:
    one, other = counting([], topics=3).snapshot(), counting([], topics=5).snapshot()
    whole = combined([one, other])
    assert whole.gauges["topics"] == {(): 8}
    assert whole.gauges["loop_lag_max_seconds"] == {(): 5.0}
    name = "process_start_time_seconds"
    assert whole.process[name] == one.process[name]
    assert whole.process["process_open_fds"] == pytest.approx(2 * one.process["process_open_fds"], abs=4)


def test_what_lasts_is_what_was_counted() -> None:
    snapshot = lasting(counting([7], topics=3).snapshot())
    assert delivered(snapshot) == 7
    assert snapshot.gauges == {}
    assert set(snapshot.process) == {"process_cpu_seconds_total"}


def test_a_snapshot_travels() -> None:
    snapshot = counting([1, 2], topics=3).snapshot()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot
    assert write_exposition(snapshot).count(b"\n") > 100


class StandIn:
    """A worker without a process: each life counts on its own."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.figures = WorkerFigures()
        self.telemetry = counting([])
        self.heard: list[Snapshot] = []

    async def ask_figures(self) -> bool:
        if self.figures.ask() and self.answers:
            self.figures.tell(self.telemetry.snapshot())
        return await self.figures.wait()

    def tell_all(self, figures: Snapshot) -> None:
        self.heard.append(figures)

    def die(self) -> None:
        self.figures.forget_process()
        self.telemetry = counting([])


async def scrape(figures: NodeFigures, asker: StandIn) -> Snapshot:
    figures.ask(asker)
    before = len(asker.heard)
    with trio.fail_after(10):
        while len(asker.heard) == before:  # noqa: ASYNC110 - a list of a stand-in
            await trio.sleep(0.01)
    return asker.heard[-1]


async def test_whoever_is_asked_tells_all(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    workers = [StandIn(), StandIn()]
    parent = counting([])
    figures = NodeFigures(workers, parent.snapshot)
    await nursery.start(figures.run)
    workers[0].telemetry.count(DELIVERED, 3)
    workers[1].telemetry.count(DELIVERED, 4)
    parent.count("service_restarts", service="worker")
    for asker in workers:
        told = await scrape(figures, asker)
        assert delivered(told) == 7
        assert told.counters["service_restarts"]["worker",] == 1
        assert told.gauges["workers"] == {("answering",): 2, ("silent",): 0}


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["count", "die", "scrape", "hang", "wake"])), max_size=30))
def test_totals_never_run_backwards(steps: list[tuple[int, str]]) -> None:
    async def main() -> None:
        workers = [StandIn(), StandIn()]
        figures = NodeFigures(workers, lambda: NOTHING)
        last = counted = 0.0
        async with trio.open_nursery() as nursery:
            await nursery.start(figures.run)
            for number, step in steps:
                worker = workers[number]
                if step == "count":
                    worker.telemetry.count(DELIVERED)
                    counted += 1
                elif step == "die":
                    worker.die()
                elif step == "scrape":
                    told = await scrape(figures, worker)
                    assert last <= delivered(told) <= counted
                    assert told.gauges["workers"]["silent",] == sum(not one.answers for one in workers)
                    last = delivered(told)
                else:
                    worker.answers = step == "wake"
                    if worker.answers and worker.figures._told is not None:
                        worker.figures.tell(worker.telemetry.snapshot())
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_one_that_hangs_holds_up_for_a_moment_and_its_gauges_are_left_out(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    well, hanging = StandIn(), StandIn()
    hanging.telemetry = counting([5], topics=9)
    figures = NodeFigures([well, hanging], lambda: NOTHING)
    await nursery.start(figures.run)
    assert (await scrape(figures, well)).gauges["topics"] == {(): 9}
    hanging.answers = False
    began_s = trio.current_time()
    told = await scrape(figures, well)
    assert TELL_S <= trio.current_time() - began_s < TELL_S + 0.1
    assert delivered(told) == 5
    assert told.gauges["topics"] == {(): 0}
    assert told.gauges["workers"] == {("answering",): 1, ("silent",): 1}
