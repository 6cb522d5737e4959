"""Keeps the measurements alive in the normal run, with little weight: half of a target must be met even so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import document, record
from tests.bench.__main__ import CURVES, MEASUREMENTS, main
from tests.bench.curve import Curve
from tests.bench.result import Result, compare, table


def run_bench(tmp_path: Path, *arguments: str) -> dict[str, Result]:
    """Run `python -m tests.bench` by itself: what is measured must not be traced for coverage."""
    figures = tmp_path / "figures.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.bench", *arguments, "--json", str(figures)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode in (0, 1), finished.stderr
    results, _ = record.read(figures)
    return {result.name: result for some in results.values() for result in some}


def missed(results: dict[str, Result], share: float) -> list[str]:
    """Name the results whose ratio is below this share of their target."""
    return [
        f"{name}: {result.ratio:.2f} instead of {result.target}"
        for name, result in results.items()
        if result.target is not None and result.ratio < result.target * share
    ]


HELD_ELSEWHERE = {"churn", "slow_subscribers", "fanout_paced", "fanout_growth"}
"""What rows 20 and 7 of tests/reliability hold, and what has no target: to have them measured here, too, is not worth
half a minute."""


@pytest.mark.measured
@pytest.mark.guard(240)
def test_quick_measurements_meet_half_of_their_targets(tmp_path: Path) -> None:
    names = [name for name in MEASUREMENTS if name not in HELD_ELSEWHERE]
    results = run_bench(tmp_path, "--quick", *names)
    assert len(results) >= 2 * len(names)
    assert missed(results, 0.5) == []


@pytest.mark.bench
def test_the_targets_are_met(tmp_path: Path) -> None:
    assert missed(run_bench(tmp_path), 1.0) == []


def test_an_unknown_measurement_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "fan-out"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "'fan-out'" in capsys.readouterr().err


def test_a_comparison_is_that_of_the_median_round() -> None:
    result = compare("x", "us", "y", [(1.0, 10.0), (5.0, 10.0), (2.0, 10.0)], target=4.0)
    assert (result.figure, result.reference, result.ratio, result.verdict) == (2.0, 10.0, 5.0, "ok")


def test_the_table_says_what_was_missed() -> None:
    results = [Result("a", "us", 2.0, 1.0, "b", target=1.0), Result("long name", "KB", 1.0, 2.0, "c")]
    assert table(results).splitlines() == [
        "what       notifyd  reference     ratio  target",
        "a          2.00 us    1.00 us  b   0.50  >= 1    MISSED",
        "long name  1.00 KB    2.00 KB  c   2.00",
    ]


def test_a_run_replaces_what_it_measured_and_leaves_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    before = Result("a", "us", 2.0, 1.0, "b", target=1.0)
    after = Result("a", "us", 1.0, 1.0, "b", target=1.0)
    curve = Curve("cost", "Cost", "subscribers", "us", {"one": [[1, 2.0], [10, None]]}, log_x=True)
    record.write(file, {"first": [before], "second": [before]}, {"fanout": [curve]})
    record.write(file, {"second": [after]})
    assert record.read(file) == ({"first": [before], "second": [after]}, {"fanout": [curve]})


def test_the_readme_and_the_plots_show_the_kept_figures() -> None:
    results, curves = record.read()
    assert results.keys() == MEASUREMENTS.keys()
    assert curves.keys() == CURVES.keys()
    readme = document.README.read_text(encoding="utf-8")
    assert document.with_figures(readme, results) == readme, "run `python -m tests.bench.document`"
    for curve in (curve for some in curves.values() for curve in some):
        assert (document.PLOTS / f"{curve.name}.svg").read_text(encoding="utf-8") == document.plot(curve), curve.name


def test_a_missed_target_is_told_in_the_table() -> None:
    results = {"one": [Result("a", "us", 2.0, 1.0, "b", target=1.0)], "two": [Result("c", "KB", 1234.5, 2000.0, "d")]}
    assert document.figures(results).splitlines()[2:] == [
        "| a | 2 us | 1 us, b | 0.50 | 1, missed | `one` |",
        "| c | 1,234 KB | 2,000 KB, d | 1.62 |  | `two` |",
    ]
