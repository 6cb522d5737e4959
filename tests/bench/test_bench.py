"""Keeps the measurements alive in the normal run, with little weight: half of a target must be met even so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN_S = 50.0


def run_bench(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run `python -m tests.bench` by itself: what is measured must not be traced for coverage."""
    figures = tmp_path / "figures.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.bench", *arguments, "--json", str(figures)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=RUN_S)
    assert finished.returncode in (0, 1), finished.stderr
    assert "ratio" in finished.stdout
    return list(json.loads(figures.read_text()))


@pytest.mark.parametrize("measurement", ["codec", "fanout", "idle", "connects"])
def test_a_quick_measurement_meets_half_of_its_targets(tmp_path: Path, measurement: str) -> None:
    for result in run_bench(tmp_path, "--quick", measurement):
        assert result["ratio"] >= result["target"] / 2, result


@pytest.mark.bench
def test_the_targets_are_met(tmp_path: Path) -> None:
    for result in run_bench(tmp_path):
        assert result["ratio"] >= result["target"], result


def test_an_unknown_measurement_is_named() -> None:
    command = [sys.executable, "-m", "tests.bench", "fan-out"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)
    assert finished.returncode == 2
    assert "'fan-out'" in finished.stderr
