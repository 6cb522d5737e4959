"""What is shown while a load runs."""

import io
import re

import msgspec
from hypothesis import given, settings
from rich.cells import cell_len
from rich.console import Console

from notifyd.bench.board import LoadBoard, showing_progress
from notifyd.bench.load import Load, Scenario
from notifyd.bench.report import LoadReport, Sample
from tests.unit.bench.reports import HOSTILE, REPORT, REPORTS, sample_at

LOAD = Load(scenario=Scenario.FANOUT, url="ws://127.0.0.1:7500/ws")


def drawn(board: LoadBoard, width: int = 80) -> str:
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(board.draw())
    return output.getvalue()


def told(*samples: Sample, is_terminal: bool = False, title: str = "") -> str:
    """All that is written while these intervals go by."""
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=is_terminal, color_system=None)
    with showing_progress(LOAD, console, title) as take:
        for sample in samples:
            take(sample)
    return output.getvalue()


def test_the_board_shows_the_load_as_it_is_now() -> None:
    board = LoadBoard(LOAD)
    assert "starting" in drawn(board)
    for sample in REPORT.samples[:10]:
        board.take(sample)
    assert [line.rstrip() for line in drawn(board, 90).splitlines()] == [
        "notifyd bench fanout   ws://127.0.0.1:7500/ws   json   measure, 2.5 s",
        "connections  1,000",
        "deliveries   8,946",
        "rate         4,772/s     ▁▁▁▁▇▇▇██▇",
        "latency, ms  mean 1.62  p50 1.21  p90 2.90  p99 6.40  p99.9 18.2  max 41.7",
        "errors       0",
        "load CPU     42 %",
        "server       CPU 80 %, 69 MB",
    ]


def test_a_saturated_load_is_seen() -> None:
    board = LoadBoard(LOAD)
    board.take(msgspec.structs.replace(sample_at(9), load_cpu=0.97))
    assert "SATURATED: the load generator is the bottleneck; give it more --processes" in drawn(board)


def test_in_a_terminal_the_last_picture_stays() -> None:
    text = told(*REPORT.samples[:8], is_terminal=True)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    last = re.sub(r"\x1b\[[\d?]*\w", "", text[text.rindex("\x1b[2K") :])
    assert "measure, 2.0 s" in last
    assert "server       CPU 80 %, 69 MB" in last


def test_elsewhere_there_is_a_line_a_second_and_one_for_each_phase() -> None:
    lines = told(*REPORT.samples[:13], title="before").splitlines()
    assert [line.split()[1] for line in lines] == ["0.2", "1.2", "2.2", "3.2"]
    assert lines[1] == (
        "before     1.2 s  measure  1,000 connections  4,772 deliveries/s  p50 1.21 ms, p99 6.40 ms  0 errors  "
        "load CPU 42 %  server CPU 80 %, 69 MB"
    )
    assert "load CPU 99 % SATURATED" in told(msgspec.structs.replace(sample_at(9), load_cpu=0.99))
    bare = told(msgspec.structs.replace(sample_at(9), latency=None, server_cpu=None, server_memory_bytes=None))
    assert bare.endswith("0 errors  load CPU 42 %\n")


def test_what_strangers_say_moves_no_cursor() -> None:
    board = LoadBoard(msgspec.structs.replace(LOAD, url=HOSTILE), HOSTILE)
    board.take(msgspec.structs.replace(sample_at(9), phase=HOSTILE))
    assert "\x1b" not in drawn(board, 300)
    assert "\u202e" not in drawn(board, 300)
    assert "[bold]" in drawn(board, 300)


@settings(max_examples=15)
@given(REPORTS)
def test_any_interval_fits_the_terminal(report: LoadReport) -> None:
    board = LoadBoard(LOAD)
    for sample in report.samples:
        board.take(sample)
        assert all(cell_len(line) <= 80 for line in drawn(board).splitlines())
        assert told(sample).count("\n") == 1
