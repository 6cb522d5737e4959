"""The table of counters and the code that counts agree: no name without a table, none in the table for nothing."""

import ast
from pathlib import Path

import pytest

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS
from tests.house_rules import read

MODULES = read(Path(__file__).parents[3], "notifyd")

CALLS = [
    (f"{module.path}:{node.lineno}", node)
    for module in MODULES
    for node in ast.walk(module.tree)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
]


def calls(method: str, *receivers: str) -> list[tuple[str, str, ast.Call]]:
    """List the calls of `receiver.method("name", ...)`: where, the name, the call."""
    return [
        (place, node.args[0].value, node)
        for place, node in CALLS
        if isinstance(node.func, ast.Attribute)
        and node.func.attr == method
        and ast.unparse(node.func.value).rpartition(".")[2].strip("_") in receivers
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


COUNTED = calls("count", "events", "telemetry", "metrics", "self")
OBSERVED = calls("observe", "events", "telemetry", "metrics")


@pytest.mark.parametrize(("place", "name", "call"), [pytest.param(*found, id=found[0]) for found in COUNTED])
def test_what_is_counted_is_declared(place: str, name: str, call: ast.Call) -> None:
    assert name in COUNTERS, f"{place} counts {name!r}: declare it in notifyd/telemetry/catalogue.py"
    labels = {keyword.arg for keyword in call.keywords} - {"amount", None}
    starred = any(keyword.arg is None for keyword in call.keywords)
    assert starred or labels == set(COUNTERS[name].labels), f"{place}: {name} has the labels {COUNTERS[name].labels}"
    for keyword in call.keywords:
        if keyword.arg and isinstance(keyword.value, ast.Constant):
            assert keyword.value.value in COUNTERS[name].labels[keyword.arg], f"{place}: {keyword.value.value!r}"


@pytest.mark.parametrize(("place", "name", "call"), [pytest.param(*found, id=found[0]) for found in OBSERVED])
def test_what_is_observed_is_declared(place: str, name: str, call: ast.Call) -> None:
    assert name in HISTOGRAMS, f"{place} observes {name!r}: declare it in notifyd/telemetry/catalogue.py"
    labels = {keyword.arg for keyword in call.keywords} - {"times", None}
    starred = any(keyword.arg is None for keyword in call.keywords)
    assert starred or labels == set(HISTOGRAMS[name].labels), (
        f"{place}: {name} has the labels {HISTOGRAMS[name].labels}"
    )


def test_every_service_is_counted_by_its_name() -> None:
    started = {name for _, name, _ in calls("start", "services", "core", "branch")}
    assert len(started) > 10
    assert started <= set(COUNTERS["service_restarts"].labels["service"])


def test_what_is_declared_is_counted_observed_or_shown() -> None:
    shown = {name for _, name, _ in calls("show", "events", "telemetry", "self")}
    assert shown - set(COUNTERS) == set(GAUGES)
    assert shown | {name for _, name, _ in COUNTED} >= set(COUNTERS)
    assert {name for _, name, _ in OBSERVED} == set(HISTOGRAMS)
