import math

from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench.histogram import LatencyHistogram, bucket_of, top_of

NS = st.integers(0, 10**13)
WIDEST = 1 / 64


def filled(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(NS)
def test_a_value_is_in_its_bucket_which_is_narrow(value: int) -> None:
    bucket = bucket_of(value)
    bottom = top_of(bucket - 1) + 1 if bucket else 0
    assert bottom <= value <= top_of(bucket)
    assert top_of(bucket) - bottom <= value * WIDEST


@given(st.lists(NS, min_size=1))
def test_percentiles_are_those_of_the_values_to_a_bucket(values: list[int]) -> None:
    found = filled(values).percentiles()
    assert found is not None
    ranked = sorted(values)
    for share, percentile in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99), (0.999, found.p999)):
        exact = ranked[math.ceil(len(values) * share) - 1] / 1e6
        assert exact * (1 - 1e-9) <= percentile <= exact * (1 + WIDEST) + 1e-9
    assert math.isclose(found.mean, sum(values) / len(values) / 1e6, rel_tol=1e-9, abs_tol=1e-9)
    assert found.max == max(values) / 1e6


@given(st.lists(NS), st.lists(NS))
def test_adding_up_and_taking_away(first: list[int], second: list[int]) -> None:
    merged = filled(first)
    merged.merge(filled(second))
    assert merged == filled(first + second)
    later = merged.since(filled(first))
    assert later.counts == filled(second).counts
    assert (later.total, later.sum_ns) == (len(second), sum(second))
    assert later.max_ns >= max(second, default=0)


def test_one_latency_may_stand_for_many() -> None:
    histogram = LatencyHistogram()
    histogram.add(1_000_000, 99)
    histogram.add(5_000_000)
    found = histogram.percentiles()
    assert found is not None
    assert (round(found.p50, 1), round(found.p99, 1), found.max, found.mean) == (1.0, 1.0, 5.0, 1.04)
    assert sum(count for _, count in histogram.buckets()) == 100


def test_of_nothing_there_is_nothing() -> None:
    assert LatencyHistogram().percentiles() is None
    assert LatencyHistogram().buckets() == []
    assert filled([-5]).counts == {0: 1}
