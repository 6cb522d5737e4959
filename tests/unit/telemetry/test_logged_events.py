"""The code that logs and `spec/logs.md` agree: every event has its row, with its level and its fields, and no other."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house_rules import read

ROOT = Path(__file__).parents[3]
MODULES = read(ROOT, "notifyd")
SPEC = (ROOT / "spec" / "logs.md").read_text(encoding="utf-8")

BY_THEMSELVES = {"timestamp", "level", "event", "node", "connection", "trace_id", "left_out", "traceback"}
"""Fields that the document explains once: any line may have them."""


class Call(NamedTuple):
    """A call that logs: where, which level (several where it is decided there), which event, which fields."""

    place: str
    receiver: str
    levels: frozenset[str]
    event: str
    fields: frozenset[str]


def constants(node: ast.expr) -> frozenset[str]:
    """Tell which texts an expression may be."""
    return frozenset(part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and part.value)


def calls() -> list[Call]:
    """List every call of `….log(LEVEL, "event", …)`."""
    return [
        Call(
            f"{module.path}:{node.lineno}",
            ast.unparse(node.func.value),
            constants(node.args[0]),
            node.args[1].value,
            frozenset(keyword.arg for keyword in node.keywords if keyword.arg),
        )
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "log"
        if len(node.args) == 2 and isinstance(node.args[1], ast.Constant)
    ]


CALLS = calls()
ROWS = {
    event: (set(re.findall(r"\w+", levels)), set(re.findall(r"`(\w+)`", fields)))
    for event, levels, fields in re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|", SPEC, re.MULTILINE)
}


def test_every_event_has_its_row_and_no_row_is_for_nothing() -> None:
    assert {call.event for call in CALLS} == set(ROWS)


@pytest.mark.parametrize("event", sorted(ROWS))
def test_a_row_has_the_levels_and_fields_of_the_code(event: str) -> None:
    mine = [call for call in CALLS if call.event == event]
    levels, fields = ROWS[event]
    named = {level for call in mine for level in call.levels if level in {"debug", "info", "warning", "error"}}
    if named:
        assert levels == named
    used = {field for call in mine for field in call.fields} - BY_THEMSELVES
    assert used <= fields, f"{used - fields} of {[call.place for call in mine]} have no place in spec/logs.md"


def test_whoever_knows_a_connection_logs_through_it() -> None:
    outside = [
        call.place
        for call in CALLS
        if call.place.startswith(("notifyd/connection/", "notifyd/listeners/websocket", "notifyd/listeners/device"))
        and call.receiver not in {"connection", "self"}
    ]
    assert outside == []


def test_events_are_words_of_their_own_and_not_counted_by_values() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", call.event) for call in CALLS)
