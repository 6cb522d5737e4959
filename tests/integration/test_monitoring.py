"""What ships for Prometheus and Grafana, held against the names and labels that a running node exposes."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, PREFIX
from notifyd.telemetry.document import METRICS_FILE, metrics_document
from tests.reliability.node_process import running_node
from tests.reliability.raw_clients import RawDevice

SPEC = Path(__file__).parents[2] / "spec"
DASHBOARD: dict[str, Any] = json.loads((SPEC / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((SPEC / "alert-rules.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
UNITS = {"short", "s", "bytes", "Bps", "mps", "cps", "ops", "percentunit"}
"""Those of Grafana that fit: https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/."""

GIVEN_BY_PROMETHEUS = {"job", "instance"}
METRICS_OF_PROMETHEUS = {"up": {"job", "instance"}}

WIDTH = 24

Exposed = dict[str, list[dict[str, str]]]


def expressions() -> list[Any]:
    """List every expression with where it stands and the labels that its text for people uses."""
    found = []
    for panel in PANELS:
        for target in panel["targets"]:
            told = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            found.append(pytest.param(target["expr"], told, id=f"{panel['title']}-{target['refId']}"))
    for rule in RULES:
        told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        found.append(pytest.param(rule["expr"], told, id=rule["alert"]))
    return found


EXPRESSIONS = expressions()


def parsed(expression: str) -> Any:
    """Parse an expression as Grafana would send it."""
    return promql.parse(expression.replace("$__rate_interval", "5m").replace("$instance", ".*"))


def parts(node: Any) -> Iterator[Any]:
    """Walk through an expression."""
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if getattr(node, name, None) is not None and not isinstance(node, promql.NumberLiteral):
            yield from parts(getattr(node, name))
    for argument in getattr(node, "args", []):
        yield from parts(argument)


def selectors(node: Any) -> list[Any]:
    return [part for part in parts(node) if isinstance(part, promql.VectorSelector)]


def labels_left(node: Any) -> set[str]:
    """Tell which labels the result of an expression has for sure."""
    match node:
        case promql.AggregateExpr():
            return set(node.modifier.labels) if node.modifier else set()
        case promql.BinaryExpr():
            left = labels_left(node.lhs)
            return left or labels_left(node.rhs)
        case promql.Call():
            inner = next((labels_left(argument) for argument in node.args if labels_left(argument)), set())
            return inner - {"le"} if node.func.name == "histogram_quantile" else inner
        case promql.MatrixSelector():
            return labels_left(node.vector_selector)
        case promql.VectorSelector():
            return set(GIVEN_BY_PROMETHEUS)
        case promql.ParenExpr() | promql.UnaryExpr():
            return labels_left(node.expr)
    return set()


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """Start a node, let a device come and go, and read what it exposes: names with the labels of each series."""
    import trio

    async def read() -> str:
        async with running_node({}) as node:
            device = await RawDevice.open(node.ports["device"])
            await device.request({"op": "connect", "id": 1})
            return await node.get("/metrics")

    found: Exposed = {}
    for family in text_string_to_metric_families(trio.run(read)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.parametrize(("expression", "told"), EXPRESSIONS)
def test_every_name_and_label_is_exposed(expression: str, told: set[str], exposed: Exposed) -> None:
    for selector in selectors(parsed(expression)):
        if selector.name in METRICS_OF_PROMETHEUS:
            continue
        assert selector.name in exposed, f"no node exposes {selector.name}"
        for matcher in selector.matchers.matchers:
            if matcher.name in GIVEN_BY_PROMETHEUS:
                continue
            values = {series.get(matcher.name) for series in exposed[selector.name]}
            wanted = set(matcher.value.split("|"))
            assert wanted <= values, f"{selector.name} has {matcher.name} {values}, not {wanted - values}"


@pytest.mark.parametrize(("expression", "told"), EXPRESSIONS)
def test_every_label_that_it_goes_by_is_one_of_the_metrics(expression: str, told: set[str], exposed: Exposed) -> None:
    whole = parsed(expression)
    for part in parts(whole):
        if isinstance(part, promql.AggregateExpr) and part.modifier:
            for selector in selectors(part):
                known = set(exposed.get(selector.name, [{}])[0]) | GIVEN_BY_PROMETHEUS
                assert set(part.modifier.labels) <= known, f"{selector.name} has {known}"
    assert told <= labels_left(whole), f"the text uses {told}, the result has {labels_left(whole)}"


@pytest.mark.parametrize(("expression", "told"), EXPRESSIONS)
def test_counters_are_asked_for_their_rate(expression: str, told: set[str]) -> None:
    whole = parsed(expression)
    rated = {
        selector.name
        for part in parts(whole)
        if isinstance(part, promql.Call) and part.func.name in {"rate", "increase"}
        for selector in selectors(part)
    }
    for selector in selectors(whole):
        is_counted = selector.name.endswith(("_total", "_bucket"))
        assert is_counted is (selector.name in rated), f"{selector.name} in {expression}"


def test_all_metrics_are_watched() -> None:
    watched = {selector.name for found in EXPRESSIONS for selector in selectors(parsed(found.values[0]))}
    names = {f"{PREFIX}{name}_total" for name in COUNTERS} | {f"{PREFIX}{name}" for name in GAUGES}
    names |= {f"{PREFIX}{name}_bucket" for name in HISTOGRAMS}
    assert names - watched == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all(target["legendFormat"] for target in panel["targets"])
    seconds = any(re.search(r"_seconds(_bucket)?\{", target["expr"]) for target in panel["targets"])
    assert (panel["fieldConfig"]["defaults"]["unit"] == "s") is seconds


def test_no_two_panels_lie_over_each_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in combinations(places, 2):
        side_by_side = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert side_by_side or above
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Notifyd[A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert "$labels.instance" in rule["annotations"]["summary"]
    assert re.fullmatch(r"\d+[sm]", rule.get("for", "1m"))


def test_the_document_of_metrics_is_fresh(tmp_path: Path) -> None:
    kept = (SPEC / METRICS_FILE).read_text(encoding="utf-8")
    assert kept == metrics_document(), f"spec/{METRICS_FILE} is stale: run `python -m notifyd.telemetry.document`"


def test_every_metric_of_a_node_is_in_the_document(exposed: Exposed) -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", metrics_document(), re.MULTILINE))
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed}
    assert names == told
    series = sum(len(found) for found in exposed.values())
    assert f"there are {series} series" in metrics_document()
