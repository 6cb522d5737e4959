import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.backoff import BASE_S, CAP_S, UNAVAILABLE_AFTER, Backoff, delay_s

fractions = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 2**70), fractions)
def test_a_delay_lies_within_its_bounds(attempt: int, fraction: float) -> None:
    least_s = min(BASE_S * 2 ** min(attempt, 10), CAP_S)
    assert least_s <= delay_s(attempt, lambda: fraction) <= min(least_s + BASE_S, CAP_S)


@given(st.integers(0, 100), fractions, fractions)
def test_a_later_attempt_never_waits_less(attempt: int, one: float, other: float) -> None:
    assert delay_s(attempt, lambda: one) <= delay_s(attempt + 1, lambda: other) + BASE_S * one


def test_nothing_overflows_however_long_it_fails() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next_delay_s() for _ in range(10_000)][-1] == CAP_S
    assert backoff.failures == 10_000
    assert delay_s(10**9, lambda: 0.0) == CAP_S


@given(st.integers(0, 20), st.integers(0, 20))
def test_failures_are_counted_until_a_success(before: int, after: int) -> None:
    backoff = Backoff(lambda: 0.0)
    for number in range(before):
        assert backoff.next_delay_s() == delay_s(number, lambda: 0.0)
        assert backoff.unavailable is (number + 1 >= UNAVAILABLE_AFTER)
    backoff.reset()
    assert (backoff.failures, backoff.unavailable) == (0, False)
    delays_s = [backoff.next_delay_s() for _ in range(after)]
    assert delays_s == [delay_s(number, lambda: 0.0) for number in range(after)]


def test_base_and_cap_can_be_others() -> None:
    backoff = Backoff(lambda: 0.5, base_s=1.0, cap_s=5.0)
    assert [backoff.next_delay_s() for _ in range(4)] == [1.5, 2.5, 4.5, 5.0]


@pytest.mark.parametrize("attempt", [0, 5])
def test_two_clients_do_not_come_back_together(attempt: int) -> None:
    source = random.Random(1).random
    assert len({delay_s(attempt, source) for _ in range(100)}) == 100
    assert Backoff().next_delay_s() != Backoff().next_delay_s()


def test_at_the_cap_waits_are_spread_where_it_is_asked_for() -> None:
    backoff = Backoff(iter([0.0] * 5 + [0.9, 0.5, 0.9, 0.0]).__next__, cap_s=2.0, spread=0.5)
    assert [backoff.next_delay_s() for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 1.5, 2.0]
