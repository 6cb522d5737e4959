"""The lag of the loop is what its rounds take: each observed, the longest told until nobody can have missed it."""

import time

import pytest
import trio
import trio.lowlevel

from notifyd.telemetry.loop_lag import INTERVAL_S, WORST_INTERVALS, LoopLag, open_loop_lag
from tests.recorded_events import RecordedEvents


class Rounds:
    """A loop whose rounds take what a test says."""

    def __init__(self, events: RecordedEvents) -> None:
        self.now_s = 100.0
        self.lag = LoopLag(events, now_s=lambda: self.now_s)

    def run(self, took_s: float, idle_s: float = 0.0) -> None:
        self.lag.after_io_wait(0)
        self.now_s += took_s
        self.lag.before_io_wait(0)
        self.now_s += idle_s


@pytest.fixture
def rounds(events: RecordedEvents) -> Rounds:
    return Rounds(events)


def test_each_round_is_observed_and_waiting_is_none(rounds: Rounds, events: RecordedEvents) -> None:
    rounds.run(0.25, idle_s=60)
    rounds.run(0.5)
    assert events.observed("loop_lag_seconds") == [0.25, 0.5]


def test_the_longest_is_told_for_as_long_as_a_scrape_may_take(rounds: Rounds) -> None:
    rounds.run(0.5)
    for _ in range(WORST_INTERVALS):
        rounds.run(0.001, idle_s=INTERVAL_S)
        assert rounds.lag.worst_s == 0.5
    rounds.now_s += 2 * INTERVAL_S
    assert rounds.lag.worst_s == pytest.approx(0.001)


def test_the_recent_one_is_that_of_the_last_second_or_two(rounds: Rounds) -> None:
    rounds.run(0.5)
    assert rounds.lag.recent_s == 0.5
    rounds.now_s += INTERVAL_S
    assert rounds.lag.recent_s == 0.5
    rounds.now_s += INTERVAL_S
    assert rounds.lag.recent_s == 0.0
    assert rounds.lag.worst_s == 0.5


def test_a_stall_longer_than_an_interval_is_told(rounds: Rounds) -> None:
    rounds.run(7.5)
    assert rounds.lag.recent_s == rounds.lag.worst_s == 7.5


async def test_a_loop_that_stands_still_is_noticed(events: RecordedEvents) -> None:
    lag = LoopLag(events)
    async with open_loop_lag(lag):
        await trio.lowlevel.checkpoint()
        time.sleep(0.05)  # noqa: ASYNC251 - this is the stall
        await trio.sleep(0.001)
        assert lag.recent_s >= 0.05
        assert max(events.observed("loop_lag_seconds")) >= 0.05
    before = len(events.observations)
    await trio.sleep(0.001)
    assert len(events.observations) == before
