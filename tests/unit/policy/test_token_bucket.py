import math

from hypothesis import given
from hypothesis import strategies as st

from notifyd.policy.token_bucket import TokenBucket

RATES = st.floats(0.01, 10_000)
BURSTS = st.integers(1, 1000)
STEPS = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=60)


@given(rate=RATES, burst=BURSTS, steps=STEPS, start_s=st.floats(0, 1e6))
def test_no_span_gets_more_than_burst_and_rate(
    rate: float, burst: int, steps: list[tuple[float, int]], start_s: float
) -> None:
    bucket = TokenBucket(rate, burst, start_s)
    now_s = start_s
    granted: list[tuple[float, int]] = []
    for wait_s, amount in steps:
        now_s += wait_s
        if bucket.take(now_s, amount):
            granted.append((now_s, amount))
    for first in range(len(granted)):
        total = 0
        for at_s, amount in granted[first:]:
            total += amount
            span_s = at_s - granted[first][0]
            assert total <= (burst + rate * span_s) * (1 + 1e-9) + 1e-6


@given(rate=RATES, burst=BURSTS, amount=st.integers(1, 1000))
def test_waiting_as_long_as_told_is_enough(rate: float, burst: int, amount: int) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    while bucket.take(0.0):
        pass
    wait_s = bucket.wait_s(0.0, amount)
    if amount > burst:
        assert wait_s == math.inf
        return
    assert wait_s > 0
    assert not bucket.take(wait_s * 0.99, amount)
    assert bucket.take(wait_s * 1.000001 + 1e-9, amount)


def test_a_full_bucket_needs_no_wait() -> None:
    bucket = TokenBucket(1, 2, 0.0)
    assert bucket.wait_s(0.0) == 0
    assert bucket.take(0.0, 2)
    assert bucket.wait_s(0.0) == 1
    assert bucket.wait_s(0.25) == 0.75


def test_a_refused_take_costs_nothing() -> None:
    bucket = TokenBucket(1, 3, 0.0)
    assert not bucket.take(0.0, 4)
    assert bucket.take(0.0, 3)


@given(st.lists(st.floats(-50, 50), max_size=40))
def test_a_clock_that_runs_backwards_earns_nothing(steps_s: list[float]) -> None:
    bucket = TokenBucket(1, 1, 0.0)
    now_s = latest_s = 0.0
    granted = 0
    for step_s in steps_s:
        now_s += step_s
        latest_s = max(latest_s, now_s)
        granted += bucket.take(now_s)
    assert granted <= 1 + latest_s + 1e-6


def test_it_is_small() -> None:
    assert not hasattr(TokenBucket(1, 1, 0.0), "__dict__")


@given(rates=st.tuples(RATES, RATES), bursts=st.tuples(BURSTS, BURSTS), wait_s=st.floats(0, 100))
def test_another_size_gives_nothing_and_takes_what_is_above_it(
    rates: tuple[float, float], bursts: tuple[int, int], wait_s: float
) -> None:
    bucket = TokenBucket(rates[0], bursts[0], 0.0)
    bucket.take(0.0, bursts[0])
    saved = min(bursts[0], rates[0] * wait_s)
    bucket.resize(rates[1], bursts[1], wait_s)
    assert math.isclose(bucket._level, min(saved, bursts[1]), rel_tol=1e-9, abs_tol=1e-9)
    assert bucket.wait_s(wait_s + bursts[1] / rates[1] * (1 + 1e-9) + 1e-6, bursts[1]) <= 1e-6
