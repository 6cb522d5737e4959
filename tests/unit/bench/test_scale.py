"""Axes and their ticks."""

from hypothesis import given
from hypothesis import strategies as st

from notifyd.bench.scale import Scale, fit_scale, is_shown, log_bins, tick_label

VALUES = st.lists(st.floats(-1e15, 1e15), max_size=20)
POSITIVE = st.floats(1e-12, 1e15)


def test_ticks_are_round() -> None:
    assert Scale(0, 7300, 0, 1).ticks(5) == [0, 2000, 4000, 6000]
    assert Scale(0, 1, 0, 1).ticks(5) == [0, 0.25, 0.5, 0.75, 1]
    assert Scale(1000, 20000, 0, 1, is_log=True).ticks(9) == [1000, 2000, 5000, 10000, 20000]
    assert Scale(0.01, 1e6, 0, 1, is_log=True).ticks(5) == [0.01, 1, 100, 10000, 1e6]


def test_labels_are_short() -> None:
    labels = [tick_label(value) for value in (0, 0.05, 2, 250, 1000, 2500, 50_000, 2e6, 3e12)]
    assert labels == ["0", "0.05", "2", "250", "1k", "2.5k", "50k", "2M", "3T"]


@given(VALUES, st.integers(2, 12))
def test_a_linear_axis_shows_all_values_and_zero(values: list[float], most: int) -> None:
    scale = fit_scale(values, 300, 20).widened(most)
    assert scale.low <= 0 <= scale.high
    assert scale.low < scale.high
    for value in values:
        assert 20 <= scale.place(value) <= 300
    assert 2 <= len(scale.ticks(most + 2)) <= most + 2


@given(st.lists(POSITIVE, max_size=20), st.integers(4, 12))
def test_a_logarithmic_axis_shows_all_values(values: list[float], most: int) -> None:
    scale = fit_scale(values, 0, 100, is_log=True)
    assert 0 < scale.low < scale.high
    for value in values:
        assert scale.low * 0.99 <= value <= scale.high * 1.01
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most
    assert ticks == sorted(ticks)
    assert all(scale.low * 0.99 <= tick <= scale.high * 1.01 for tick in ticks)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_places_keep_the_order(values: list[float]) -> None:
    scale = fit_scale(values, 0, 100, is_log=True)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)


def test_what_is_no_number_is_not_shown() -> None:
    nothing = (None, float("nan"), float("inf"), 1e300)
    assert not any(is_shown(value, is_log=False) for value in nothing)
    assert is_shown(0.0, is_log=False)
    assert not is_shown(0.0, is_log=True)
    assert fit_scale([float("nan"), 3], 0, 1).high == 3


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30), st.integers(8, 60))
def test_bins_hold_every_value(values: list[float], most: int) -> None:
    ends = log_bins(values, most)
    assert len(ends) <= most
    assert ends == sorted(ends)
    assert max(values) <= ends[-1] * 1.000001


def test_bins_are_as_fine_as_there_is_room() -> None:
    assert log_bins([1.1, 2.4], 16) == [1.25, 1.6, 2, 2.5]
    assert log_bins([0.6, 30], 6) == [1, 2, 5, 10, 20, 50]
    assert log_bins([5], 16) == [5]
