"""What a report looks like in a terminal."""

import io

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from notifyd.bench.figures import describe_ms, describe_rate, describe_ratio, describe_seconds, describe_share
from notifyd.bench.report import Comparison, LoadReport
from notifyd.bench.text import bin_latencies, draw_columns, draw_comparison, draw_report
from tests.unit.bench.reports import EMPTY, HISTOGRAM, HOSTILE, REPORT, REPORTS


def lines_of(drawn: RenderableType, width: int = 80) -> list[str]:
    """Draw it without colours; the lines, as wide as they are."""
    output = io.StringIO()
    Console(file=output, width=width, color_system=None, legacy_windows=False).print(drawn)
    return output.getvalue().split("\n")


def text_of(drawn: RenderableType, width: int = 80) -> str:
    return "\n".join(line.rstrip() for line in lines_of(drawn, width))


def test_a_report() -> None:
    assert text_of(draw_report(REPORT)) == GOLDEN


def test_a_report_of_nothing() -> None:
    text = text_of(draw_report(EMPTY))
    assert text.count("nothing was measured") == 2
    assert "\nlatency p99                   -\n" in text


def test_saturation_and_errors_are_told() -> None:
    changed = msgspec.structs.replace(
        REPORT, saturated="a load process was busy", errors={"timeout": 1200, "refused": 3}
    )
    text = text_of(draw_report(changed))
    assert "SATURATED: a load process was busy. The server may be faster than these figures." in text.replace("\n", " ")
    assert "timeout   1,200" in text
    assert "refused       3" in text


def test_a_comparison() -> None:
    after = msgspec.structs.replace(REPORT, rate=REPORT.rate * 1.5, errors={"refused": 2})
    text = text_of(draw_comparison(Comparison(REPORT, after, {"limits.messages": "x", "log.level": "'warning'"})))
    for told in (
        "tuned: log.level = 'warning'",
        "tuned: limits.messages = x\n  instead of { rate = 100, burst = 200 }\n  why: one publisher may",
        "latency, before: share",
        "latency, after: share",
        "before: The load",
    ):
        assert told in text
    (rate,) = [line.split() for line in text.splitlines() if line.startswith("rate  ")]
    assert rate == ["rate", "5,964/s", "8,946/s", "x", "1.50"]
    (errors,) = [line.split() for line in text.splitlines() if line.startswith("refused")]
    assert errors == ["refused", "0", "2"]


def test_one_bucket_is_one_bar() -> None:
    text = text_of(draw_report(msgspec.structs.replace(REPORT, histogram=[(5.0, 3)])))
    (bar,) = [line for line in text.splitlines() if "100.0 %" in line]
    assert bar.strip().startswith("5 ███")
    assert bar.endswith("p50 p90 p99 p99.9")


def test_what_strangers_say_moves_no_cursor() -> None:
    changed = msgspec.structs.replace(REPORT, url=HOSTILE, unit=HOSTILE, errors={HOSTILE: 1}, saturated=HOSTILE)
    text = text_of(draw_report(changed), 200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "?[2J?[bold]&" in text


@settings(max_examples=15)
@given(REPORTS, REPORTS, st.integers(60, 120))
def test_any_report_fits_the_terminal(before: LoadReport, after: LoadReport, width: int) -> None:
    for drawn in (draw_report(before), draw_comparison(Comparison(before, after, {HOSTILE: HOSTILE}))):
        assert all(cell_width(line) <= width for line in lines_of(drawn, width))


def cell_width(line: str) -> int:
    """How many columns of a terminal a line takes."""
    from rich.cells import cell_len

    return cell_len(line)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 1000)), max_size=40), st.integers(8, 40))
def test_bins_hold_every_operation(histogram: list[tuple[float, int]], most: int) -> None:
    bins = bin_latencies(histogram, most)
    assert sum(count for _, count in bins) == sum(count for _, count in histogram)
    assert len(bins) <= most


def test_bins_are_round() -> None:
    assert bin_latencies(HISTOGRAM, 7) == [
        (0.5, 1200),
        (1.0, 23100),
        (2.0, 27000),
        (5.0, 5200),
        (10.0, 3100),
        (20.0, 0),
        (50.0, 41),
    ]
    assert bin_latencies([(float("inf"), 3), (1.0, 0)], 6) == []


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ["", ""]),
        ([0.0, 0.0], ["    ", "    "]),
        ([0, 1, 2, 4], ["   █", " ▄██"]),
        ([5], ["████", "████"]),
        ([1, 1, 1, 1, 3, 3, 3, 3], ["  ██", "▅▅██"]),
    ],
)
def test_columns(values: list[float], drawn: list[str]) -> None:
    assert draw_columns(values, 4, 2) == drawn


@given(st.lists(st.floats(0, 1e9), max_size=200), st.integers(1, 80), st.integers(1, 10))
def test_columns_fit_and_reach_the_top(values: list[float], width: int, lines: int) -> None:
    drawn = draw_columns(values, width, lines)
    assert len(drawn) == lines
    assert len({len(line) for line in drawn}) == 1
    assert len(drawn[0]) <= width
    if any(value > 1e-6 for value in values):
        assert "█" in drawn[0]


def test_numbers_for_people() -> None:
    assert [describe_ms(value) for value in (0, 0.0434, 0.5, 1.214, 12.34, 87, 1250)] == [
        "0 ms",
        "0.043 ms",
        "0.50 ms",
        "1.21 ms",
        "12.3 ms",
        "87.0 ms",
        "1,250 ms",
    ]
    assert [describe_seconds(value) for value in (2.1e-6, 0.0034, 1.5)] == ["2.10 µs", "3.40 ms", "1.50 s"]
    assert [describe_rate(value) for value in (0, 0.5, 12, 98234.4)] == ["0", "0.5", "12", "98,234"]
    assert [describe_share(value) for value in (0, 0.041, 0.87, 1)] == ["0.0 %", "4.1 %", "87 %", "100 %"]
    assert [describe_ratio(value) for value in (None, 0, 0.5, 1.42, 150)] == ["", "x 0", "x 0.50", "x 1.42", "x 150"]


GOLDEN = """\
notifyd bench fanout
ws://127.0.0.1:7500/ws, json, 2 load processes, 2025-11-26 06:36:00 UTC
connections 1000, payload_bytes 150
connect 1.10 s  measure 10.00 s

connections                   1,000
deliveries                   59,641
seconds measured              10.00
rate                        5,964/s
latency mean                1.62 ms
latency p50                 1.21 ms
latency p90                 2.90 ms
latency p99                 6.40 ms
latency p99.9               18.2 ms
latency max                 41.7 ms
errors                            0
server CPU, of a core          83 %
server CPU per delivery      139 µs
server CPU per connection  830 µs/s
server memory                 69 MB
memory per connection         17 kB

The load generator was not saturated: it did not set these figures.

latency: share of the deliveries that took up to so many ms
  0.63 ██▍                                                       2.0 %
     1 ███████████████████████████████████████████████          38.7 %
   1.6 ███████████████████████████████████████████████████████  45.3 % p50
   2.5 ██████████▌                                               8.7 % p90
     4
   6.3 ██████▎                                                   5.2 % p99 p99.9
    10
    16
    25
    40 ▎                                                       0.069 %

rate: deliveries a second, over time
  5,965      ▁▃▆█ ▁▃▆█ ▁▃▆█ ▁▃▆█ ▁▃▆█ ▁▃▆█ ▁▃▆█ ▁▃▆█
            ▆████▆████▆████▆████▆████▆████▆████▆████
            ████████████████████████████████████████
            ████████████████████████████████████████
            ████████████████████████████████████████
            ████████████████████████████████████████
      0 0 s                                   11.0 s
"""
