"""The figures as they are kept: `tests/bench/results.json`, from which the README's tables are written.

A run replaces what it measured and leaves the rest, so that one measurement can be repeated by itself.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.curve import Curve
from tests.bench.result import Result

RESULTS = Path(__file__).with_name("results.json")


def merged(
    kept: Mapping[str, Any], results: Mapping[str, Sequence[Result]], curves: Mapping[str, Sequence[Curve]]
) -> dict[str, Any]:
    """Return what was kept with what a run measured, by the names of its measurements."""
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "results": {
            **kept.get("results", {}),
            **{name: [one.as_json() for one in some] for name, some in results.items()},
        },
        "curves": {**kept.get("curves", {}), **{name: [asdict(one) for one in some] for name, some in curves.items()}},
    }


def write(
    path: Path, results: Mapping[str, Sequence[Result]], curves: Mapping[str, Sequence[Curve]] | None = None
) -> None:
    """Write a run's figures into a file, over those it measured again."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(merged(kept, results, curves or {}), indent=1) + "\n", encoding="utf-8")


def read(path: Path = RESULTS) -> tuple[dict[str, list[Result]], dict[str, list[Curve]]]:
    """Read the figures of all measurements, and the curves."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    results = {name: [Result.of_json(one) for one in some] for name, some in kept["results"].items()}
    return results, {name: [Curve(**one) for one in some] for name, some in kept["curves"].items()}
