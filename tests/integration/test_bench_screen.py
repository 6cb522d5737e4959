"""What `notifyd bench` shows: in a real terminal and in pipes, of real loads, small ones."""

import re
from pathlib import Path

import msgspec
import pytest
import trio

from notifyd.bench import tuning
from notifyd.bench.load import Load, Scenario
from notifyd.bench.report import Comparison
from notifyd.cli.bench import run_and_print, write_page
from tests.kit.pty_program import ENVIRONMENT, NOTIFYD, running_in_a_terminal

pytestmark = pytest.mark.guard(60)

SMALL = ("--connections", "20", "--processes", "1")


async def test_in_a_terminal_it_is_live_and_ends_in_tables_and_plots(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    asked = ("bench", "fanout", *SMALL, "--seconds", "0.6", "--html", str(page))
    async with running_in_a_terminal(*asked, lines=60, columns=80) as program:
        await program.wait_for(r"connections  22\b")
        await program.wait_for("measure, ")
        assert await program.ended() == 0
    text = re.sub(r"\x1b\[[\d;?]*\w", "", program.text).replace("\r", "")
    assert "\x1b[?25h" in program.text  # the cursor is back
    report = text[text.rindex("ws://") :]  # behind the last that was live, from which the cursor may have gone up
    assert re.search(r"^connections +22 *$", report, re.MULTILINE)
    assert re.search(r"^rate +[\d,]+/s *$", report, re.MULTILINE)
    assert "latency: share of the deliveries" in report
    assert "rate: deliveries a second, over time" in report
    assert "█" in report
    assert [line for line in report.splitlines()[1:] if len(line) > 80] == []
    assert page.read_text().count("<svg") == 7
    assert "nothing was measured" not in page.read_text()


async def test_before_and_after_tuning_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "TUNING_ROUNDS", 1)
    load = Load(scenario=Scenario.CONNECT, connections=20, processes=1)
    found = await run_and_print(load, as_json=True, is_tuning=True)
    comparison = msgspec.json.decode(capsys.readouterr().out, type=Comparison)
    assert comparison == found
    assert comparison.before.operations == comparison.after.operations == 20
    assert comparison.after.options["limits.connects"] == comparison.tuning["limits.connects"]
    write_page(tmp_path / "report.html", comparison)
    assert "instead of" in (tmp_path / "report.html").read_text()


async def test_what_cannot_be_tuned_is_said_at_once() -> None:
    asked = ("bench", "heartbeats", *SMALL, "--profile", "tuning")
    ended = await trio.run_process(
        [*NOTIFYD, *asked], capture_stdout=True, capture_stderr=True, check=False, env=ENVIRONMENT
    )
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"notifyd bench: no setting makes heartbeats cheaper")
