"""Words, numbers and curves for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.text import curve_of, describe_bytes, describe_duration, describe_number, printable


@pytest.mark.parametrize(
    ("duration_ms", "told"),
    [
        (-5, "0s"),
        (999, "0s"),
        (59_999, "59s"),
        (60_000, "1m 0s"),
        (3_600_000, "1h 0m"),
        (90_000_000, "1d 1h"),
        (864_000_000, "10d 0h"),
    ],
)
def test_durations(duration_ms: int, told: str) -> None:
    assert describe_duration(duration_ms) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0"),
        (0.04, "0.0"),
        (0.4, "0.4"),
        (7, "7"),
        (12.34, "12.3"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (1234, "1.23k"),
        (12345, "12.3k"),
        (999_400, "999k"),
        (999_999, "1.00M"),
        (45_600_000, "45.6M"),
        (10**12, "1T"),
        (10**16, "10000T"),
    ],
)
def test_numbers(number: float, told: str) -> None:
    assert describe_number(number) == told


@given(st.floats(0, 1e15))
def test_a_number_is_said_in_few_characters_and_about_right(number: float) -> None:
    told = describe_number(number)
    assert len(told) <= 5
    value = float(told.rstrip("kMGT")) * 1000 ** " kMGT".index(told[-1] if told[-1] in "kMGT" else " ")
    assert value == pytest.approx(number, rel=0.006, abs=0.051)


def test_bytes() -> None:
    assert [describe_bytes(size) for size in (0, 1500, 54_300_000)] == ["0 B", "1.50 kB", "54.3 MB"]


def test_what_a_stranger_wrote_cannot_move_the_cursor_or_turn_the_line() -> None:
    assert printable("a:\x1b[2J\u202eb\u200b\n[bold]é") == "a:?[2J?b??[bold]é"


@given(st.lists(st.floats(0, 1e9), max_size=80), st.integers(1, 40))
def test_a_curve_shows_the_newest_values_the_highest_in_full(values: list[float], width: int) -> None:
    curve, shown = curve_of(values, width), values[-width:]
    assert len(curve) == len(shown)
    if any(shown):
        assert curve[shown.index(max(shown))] == "█"
    for one, other, bar, other_bar in zip(shown, shown[1:], curve, curve[1:], strict=False):
        assert (one <= other) is (bar <= other_bar) or bar == other_bar
