"""Whole clusters under whatever happens keep every promise; a failure replays identically, and bugs are found.

A failure prints the plan: `python -m tests.simulation 'Plan(…)'` plays it again and prints all that happened. The blob
that Hypothesis prints does the same inside the test.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.simulation.cluster import Outcome, simulate
from tests.simulation.found import FOUND
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import (
    ClientPlan,
    ClogRedis,
    CutRedis,
    FailOver,
    KillNode,
    KillRedis,
    Move,
    Plan,
    Publish,
    SlowRedis,
    StallRedis,
    plans,
)
from tests.simulation.search import plans_until_caught
from tests.simulation.sharp_plans import SHARP

ROOT = Path(__file__).parent.parent.parent


BUSY = Plan(
    seed=5,
    skews_s=(0.0, 3600.0),
    clients=(ClientPlan(), ClientPlan(acknowledges=True, encoding="msgpack"), ClientPlan()),
    steps=(
        Publish(2_000, 0, "room:a", 5, pause_ms=30),
        CutRedis(2_040, 0),
        SlowRedis(3_000, 1, 30, 100),
        Publish(3_000, 1, "room:b", 5),
        Move(3_100, 1, 0, silent=True),
        StallRedis(8_000, 0, 12),
        Publish(8_001, 2, "plain:d", 3),
        KillNode(12_000, 1, 8),
        Publish(12_000, 2, "short:c", 8),
        FailOver(20_000, 0, 12, lag=5),
        Publish(20_001, 1, "room:a", 8, pause_ms=150),
    ),
)


@given(plans())
@settings(max_examples=200, print_blob=True)
@pytest.mark.guard(600)
def test_no_promise_is_broken(plan: Plan) -> None:
    outcome = simulate(plan)
    assert not outcome.broken, str(outcome)


@pytest.mark.long
@given(plans())
@settings(max_examples=10_000, print_blob=True)
def test_no_promise_is_broken_in_a_week(plan: Plan) -> None:
    outcome = simulate(plan)
    assert not outcome.broken, str(outcome)


# --- it replays -------------------------------------------------------------------------------------------------------


def test_a_plan_gives_the_same_trace_again() -> None:
    first, again = simulate(BUSY), simulate(BUSY)
    assert len(first.trace) > 200
    assert again.trace == first.trace


@pytest.mark.guard(120)
def test_a_plan_gives_the_same_trace_in_every_process() -> None:
    digests = set()
    for hashing in ("1", "2", "3"):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.simulation", repr(BUSY)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(ran.stdout.splitlines()[-1])
    assert len(digests) == 1


# --- faults are felt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (CutRedis(10_000, 0), "the network cut it"),
        (CutRedis(10_000, 0, silent=True), "the network cut it"),
        (ClogRedis(10_000, 0, 60), "no answer within"),
        (StallRedis(10_000, 0, 60), "no answer within"),
        (KillRedis(10_000, 0, 60), "redis refuses connections"),
        (FailOver(10_000, 0, 60), "'reason': 'epoch'"),
        (KillNode(10_000, 0, 60), "'node': 'n0.2'"),
    ],
)
def test_a_fault_is_felt(step: CutRedis, told: str) -> None:
    outcome = simulate(Plan(skews_s=(0.0,), steps=(step,)))
    assert any(told in line for line in outcome.trace[20:])
    assert not outcome.broken, str(outcome)


def test_a_slow_link_is_slow() -> None:
    quick, slow = (
        simulate(Plan(skews_s=(0.0,), steps=(*faults, Publish(10_000, 0, "room:a"))))
        for faults in ((), (SlowRedis(9_000, 0, 60, 350),))
    )
    assert _answered_s(slow) - _answered_s(quick) > 0.5


def _answered_s(outcome: Outcome) -> float:
    return float(next(line for line in outcome.trace if "'published'" in line)[:9])


# --- it finds bugs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(name: str) -> None:
    """By its own plan; where that is no longer sharp, `python -m tests.simulation.search` finds another one."""
    assert simulate(SHARP[name], MUTATIONS[name]).broken
    assert not simulate(SHARP[name]).broken


def test_every_sharp_plan_has_its_mutation() -> None:
    assert SHARP.keys() == MUTATIONS.keys()


@pytest.mark.long
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught_by_chance(name: str, report: Callable[[str], None]) -> None:
    tries = plans_until_caught(MUTATIONS[name], 2_000)
    report(f"simulation: {name}: caught by plan {tries}")
    assert tries is not None


# --- and what it has found --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weakness", FOUND)
def test_what_was_found_stays_mended(weakness: str) -> None:
    outcome = simulate(FOUND[weakness])
    assert not outcome.broken, str(outcome)
