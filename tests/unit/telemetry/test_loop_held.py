"""Whoever holds the event loop is named: in the log with all that is known, in the metrics by the service it runs in.

Time is the tests' own: a task takes as long as it says.
"""

import gc
import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.clock import Clock
from notifyd.supervision import open_branch
from notifyd.telemetry.catalogue import SERVICES
from notifyd.telemetry.loop_lag import HELD_S, TOLD_S, LoopLag, open_loop_lag
from notifyd.telemetry.task_names import place_of
from tests.kit.memory_node import open_memory_node
from tests.recorded_events import RecordedEvents

STALL_S = 2 * TOLD_S
SHORT_S = TOLD_S / 2


class Time:
    """Passes only where a task says so; half of it is the processor's."""

    def __init__(self, events: RecordedEvents, connections: Any = ()) -> None:
        self.now_s = 100.0
        self.lag = LoopLag(events, connections, now_s=lambda: self.now_s, cpu_s=lambda: self.now_s / 2)

    async def hold(self, took_s: float) -> None:
        """Hold the loop for so long, and end."""
        self.now_s += took_s

    async def then_waits(self, took_s: float) -> None:
        """Hold the loop for so long, then wait for ever."""
        self.now_s += took_s
        await trio.sleep_forever()

    def held_s(self) -> dict[str, float]:
        """For how long services held the loop, without those that did not."""
        return {kind: held_s for (kind,), held_s in self.lag.held_s.items() if held_s}


@pytest.fixture
def time(events: RecordedEvents) -> Time:
    return Time(events)


@asynccontextmanager
async def watched(time: Time) -> AsyncIterator[trio.Nursery]:
    """Let the test start tasks that are watched. Fails where Trio has thrown the instrument out, as one that raises."""
    async with trio.open_nursery() as nursery, open_loop_lag(time.lag):
        await trio.lowlevel.checkpoint()
        yield nursery
        nursery.cancel_scope.cancel()


async def rounds(number: int = 3) -> None:
    for _ in range(number):
        await trio.lowlevel.checkpoint()


async def test_a_task_that_holds_the_loop_is_named(time: Time, events: RecordedEvents) -> None:
    async with watched(time) as nursery:
        nursery.start_soon(time.then_waits, STALL_S)
        await rounds()
    (line,) = events.logged("loop_held")
    assert line.pop("at").rpartition(":")[0] == f"{__name__}.Time.then_waits"
    assert line == {
        "service": "other",
        "task": f"{__name__}.Time.then_waits",
        "held_s": STALL_S,
        "cpu_s": STALL_S / 2,
        "gc_s": 0.0,
    }
    assert {level for level, _, _ in events.lines} == {"warning"}
    assert time.held_s() == {"other": STALL_S}


async def test_of_two_in_one_round_each_is_named_with_its_own_time(time: Time, events: RecordedEvents) -> None:
    async with watched(time) as nursery:
        nursery.start_soon(time.hold, STALL_S, name="one")
        nursery.start_soon(time.hold, 2 * STALL_S, name="other")
        await rounds()
    told = {line["task"]: (line["held_s"], line["cpu_s"]) for line in events.logged("loop_held")}
    assert told == {"one": (STALL_S, STALL_S / 2), "other": (2 * STALL_S, STALL_S)}
    assert events.logged("loop_late") == []
    assert time.held_s() == {"other": 3 * STALL_S}


async def test_the_collection_of_garbage_is_told_of_the_task_that_it_befell(time: Time, events: RecordedEvents) -> None:
    def collects(phase: str, _details: object) -> None:
        if phase == "stop":
            time.now_s += STALL_S

    async def makes_garbage() -> None:
        gc.callbacks.insert(0, collects)
        gc.collect()
        gc.callbacks.remove(collects)

    async with watched(time) as nursery:
        nursery.start_soon(makes_garbage, name="the unlucky one")
        nursery.start_soon(time.hold, STALL_S, name="the guilty one")
        await rounds()
    told = {line["task"]: line["gc_s"] for line in events.logged("loop_held")}
    assert told == {"the unlucky one": STALL_S, "the guilty one": 0.0}
    assert time.lag._on_garbage not in gc.callbacks


async def test_one_that_has_ended_is_nowhere(time: Time, events: RecordedEvents) -> None:
    async with watched(time) as nursery:
        nursery.start_soon(time.hold, STALL_S)
        await rounds()
    assert [line["at"] for line in events.logged("loop_held")] == [None]


async def test_a_task_far_below_a_service_is_one_of_that_service(time: Time, events: RecordedEvents) -> None:
    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as outer:
            task_status.started()
            outer.start_soon(below)
            await trio.sleep_forever()

    async def below() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(time.then_waits, STALL_S)

    async with watched(time), open_branch("node", events=events, clock=Clock()) as branch:
        await branch.start("redis at 192.0.2.7:6379", serve)
        await rounds()
    (line,) = events.logged("loop_held")
    assert line["service"] == "node/redis at 192.0.2.7:6379"
    assert line["task"] == f"{__name__}.Time.then_waits"
    assert time.held_s() == {"redis": STALL_S}


async def test_a_round_of_short_steps_is_told_once_with_the_longest(time: Time, events: RecordedEvents) -> None:
    async with watched(time) as nursery:
        for took_s in (SHORT_S, SHORT_S, SHORT_S + 0.01, SHORT_S):
            nursery.start_soon(time.hold, took_s, name=f"for {took_s}")
        await rounds()
    took_s = 4 * SHORT_S + 0.01
    assert events.logged("loop_held") == []
    assert events.logged("loop_late") == [
        {
            "lag_s": took_s,
            "cpu_s": round(took_s / 2, 3),
            "gc_s": 0.0,
            "service": "other",
            "task": f"for {SHORT_S + 0.01}",
            "held_s": SHORT_S + 0.01,
        }
    ]
    assert time.held_s() == {"other": pytest.approx(took_s)}


async def test_many_steps_that_nobody_notices_make_a_round_late_without_a_name(
    time: Time, events: RecordedEvents
) -> None:
    async with watched(time) as nursery:
        for _ in range(1000):
            nursery.start_soon(time.hold, STALL_S / 1000)
        await rounds()
    (line,) = events.logged("loop_late")
    assert (line["lag_s"], line["task"], line["held_s"]) == (STALL_S, None, 0.0)
    assert time.held_s() == {}


async def test_what_holds_a_connection_up_is_told_with_its_id(autojump_clock: trio.abc.Clock) -> None:
    async with open_memory_node() as node:
        time = Time(node.events, node.context.connections)
        for _ in range(3):
            await node.connected()
        one = node.connections[1]
        async with watched(time):
            one.nursery.start_soon(time.hold, STALL_S)
            await rounds()
            (service,) = (task for task in node._services if task.name.endswith("Connections.run"))
            time.lag._note(service, STALL_S)
            assert node.served[0].task is not None
            time.lag._note(node.served[0].task, STALL_S)
        told = [line.get("connection") for line in node.events.logged("loop_held")]
        assert told == [one.id, None, node.connections[0].id]


async def test_odd_tasks_do_not_throw_the_instrument_out(
    time: Time, events: RecordedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    async def numbers() -> AsyncIterator[int]:
        while True:
            time.now_s += STALL_S
            await trio.lowlevel.checkpoint()
            yield 1

    async def iterates() -> None:
        async with aclosing(numbers()) as generator:
            async for _ in generator:
                break

    async def fails() -> None:
        time.now_s += STALL_S
        raise ValueError("its own")

    async def is_cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                time.now_s += STALL_S

    with caplog.at_level(logging.ERROR, "trio.abc.Instrument"):
        async with watched(time) as nursery:
            nursery.start_soon(iterates)
            nursery.start_soon(is_cancelled)
            await rounds(5)
            with pytest.RaisesGroup(ValueError):
                async with trio.open_nursery() as failing:
                    failing.start_soon(fails)
    assert len(events.logged("loop_held")) == 3
    assert caplog.records == []


async def test_where_a_task_stands_is_its_innermost_function_that_is_not_trios(time: Time) -> None:
    async def calls() -> None:
        await time.then_waits(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls)
        await rounds()
        (task,) = nursery.child_tasks
        lines, first = inspect.getsourcelines(Time.then_waits)
        assert place_of(task) == f"{__name__}.Time.then_waits:{first + len(lines) - 1}"
        nursery.cancel_scope.cancel()
    assert place_of(task) is None


def stand_in(name: str) -> Any:
    return SimpleNamespace(name=name, parent_nursery=None, child_nurseries=[], iter_await_frames=lambda: iter(()))


STEPS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["node/hub/fanout", "node/listeners/websocket", "node/x/unheard of", "main"]),
            st.floats(0, 2 * TOLD_S) | st.sampled_from([0.0, HELD_S / 2, HELD_S, TOLD_S]),
        ),
        max_size=6,
    ),
    max_size=6,
)


@given(STEPS)
def test_any_rounds(rounds: list[list[tuple[str, float]]]) -> None:
    events = RecordedEvents()
    time = Time(events)
    steps, late = [], 0
    for steps_of_round in rounds:
        time.lag.after_io_wait(0)
        began_s, took = time.now_s, []
        for name, took_s in steps_of_round:
            before_s = time.now_s
            time.now_s += took_s
            took.append((name, time.now_s - before_s))
            time.lag.after_task_step(stand_in(name))
        round_s = time.now_s - began_s
        late += round_s >= TOLD_S and not any(took_s >= TOLD_S for _, took_s in took)
        steps += took
        time.lag.before_io_wait(0)
        time.now_s += 7  # nothing to do for a while
    told = [(line["task"], line["held_s"]) for line in events.logged("loop_held")]
    assert told == [(name, round(took_s, 3)) for name, took_s in steps if took_s >= TOLD_S]
    assert len(events.logged("loop_late")) == late
    assert time.lag.held_s.keys() == {(kind,) for kind in SERVICES}
    kinds = {"node/hub/fanout": "fanout", "node/listeners/websocket": "websocket"}
    expected: dict[str, float] = {}
    for name, took_s in steps:
        if took_s >= HELD_S:
            kind = kinds.get(name, "other")
            expected[kind] = expected.get(kind, 0.0) + took_s
    assert time.held_s() == pytest.approx(expected)
