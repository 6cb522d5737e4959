"""How the house is built, as data, and the tests that hold the code to it.

A failure names the file, the line and what to do. To change a rule, change the table here and say why in the commit.
"""

import ast
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house_rules as rules

ROOT = Path(__file__).parent.parent

FLOORS = {
    # Bytes <-> frames <-> messages <-> session rules: no I/O, no clock, time is an argument.
    "protocol": 0,
    # The shared nouns, the configuration, pure decisions.
    "notifyd.model": 1,
    "notifyd.errors": 1,
    "notifyd.events": 1,
    "notifyd.text": 1,
    "notifyd.tracing": 1,
    "notifyd.settings": 1,
    "notifyd.policy": 1,
    "notifyd.auth": 1,
    # What time it is; who listens to what, where messages live.
    "notifyd.clock": 2,
    "notifyd.broker": 2,
    "notifyd.hub": 2,
    # The settings in force, and how they change.
    "notifyd.centre": 2,
    # The socket, and the life of one client.
    "notifyd.transport": 3,
    "notifyd.connection": 3,
    # What is put together from all of it.
    "notifyd.listeners": 4,
    "notifyd.supervision": 4,
    "notifyd.figures": 4,
    "notifyd.node": 4,
    "notifyd.telemetry": 4,
    "notifyd.cli": 4,
}
"""A file imports from its own floor, without circles, and from the floors below; never from above."""

SIDE_DOORS = {
    "notifyd.client": ("protocol", "notifyd.transport", "notifyd.model", "notifyd.errors"),
    "notifyd.bench": ("protocol", "notifyd.errors", "notifyd.text", "notifyd.client"),
}
"""The client and the load generator, programs of their own: they import only these, and only the top floor them."""

FRONT = ("notifyd",)
"""A front page (`notifyd/__init__.py`): holds the version, imports no part."""

BANNED = {
    "asyncio": "notifyd runs on Trio, and asyncio must not come back through a side entrance",
    "trio_asyncio": "notifyd runs on Trio alone",
    "redis.asyncio": "commands go over our own link (spec/decisions)",
    "threading": "no threads but for blocking library calls, in the files listed in THREADS_ALLOWED",
    "_thread": "no threads but for blocking library calls",
    "concurrent": "no threads but for blocking library calls",
    "trio.to_thread": "no threads but for blocking library calls, in the files listed in THREADS_ALLOWED",
    "trio.from_thread": "no threads but for blocking library calls",
    "trio_websocket": "only transport/websocket.py (and the client's twin) knows trio-websocket; talk to that instead",
}

THREADS_ALLOWED: tuple[str, ...] = ("notifyd/telemetry/traces.py",)
"""Files that may call a blocking library in a thread: OpenTelemetry's exporter, which waits for its own."""

ALLOWED = {
    "trio_websocket": ("notifyd/transport/websocket.py", "notifyd/client/websocket.py"),
    "threading": THREADS_ALLOWED,
    "trio.to_thread": THREADS_ALLOWED,
}

BANNED_IN_PROTOCOL = dict.fromkeys(
    ["trio", "socket", "ssl", "select", "selectors", "time", "datetime", "sched", "signal", "subprocess", "os"],
    "protocol/ is sans-IO: bytes and times come in as arguments, answers go out as return values",
)

FILE_LINES = 400
FUNCTION_LINES = 60
MOST_FUNCTION_LINES = 40
MOST = 0.9
"""This share of all functions is shorter than MOST_FUNCTION_LINES."""

NAMES_FOR_NOTHING = ("util", "utils", "helper", "helpers", "manager", "managers", "misc", "common", "stuff")

SHARED_NAMES: tuple[str, ...] = ()
"""Public names that several modules may define each for itself."""

TOP_LEVEL = {"protocol", "notifyd", "tests", "spec", "README.md", "pyproject.toml", "LICENSE", "CHANGELOG.md"}
MADE_BY_TOOLS = {"build", "dist", "notifyd.toml", "__pycache__"}

PACKAGES = rules.read(ROOT, "protocol", "notifyd")
PROTOCOL = [module for module in PACKAGES if module.name.split(".")[0] == "protocol"]
TESTS = rules.read(ROOT, "tests")


def hold(complaints: list[str]) -> None:
    """Fail with the complaints alone: they say where, what and what to do."""
    __tracebackhide__ = True
    if complaints:
        pytest.fail("\n".join(["", *complaints]), pytrace=False)


def test_imports_stay_on_their_floor_or_go_down() -> None:
    hold(rules.floor_complaints(PACKAGES, FLOORS, SIDE_DOORS, FRONT))


def test_no_imports_in_circles() -> None:
    hold(rules.circle_complaints(PACKAGES))


def test_banned_imports() -> None:
    hold(rules.banned_import_complaints(PACKAGES, BANNED, ALLOWED))


def test_threads_are_not_started_by_attribute_either() -> None:
    used = {
        f"{module.path}:{node.lineno}: {ast.unparse(node)}: {BANNED['trio.to_thread']}"
        for module in PACKAGES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"trio.to_thread", "trio.from_thread"}
        if module.path not in THREADS_ALLOWED
    }
    hold(sorted(used))


def test_tests_use_no_asyncio() -> None:
    hold(rules.banned_import_complaints(TESTS, {"asyncio": BANNED["asyncio"]}, {}))


def test_the_protocol_is_sans_io() -> None:
    hold(rules.banned_import_complaints(PROTOCOL, BANNED_IN_PROTOCOL, {}))


def test_the_protocol_imports_little() -> None:
    hold(rules.foreign_import_complaints(PROTOCOL, ("protocol", "construct", "msgspec"), sys.stdlib_module_names))


def test_files_and_functions_are_short() -> None:
    hold(rules.size_complaints(PACKAGES, FILE_LINES, FUNCTION_LINES))


def test_most_functions_are_shorter_still(report: Callable[[str], None]) -> None:
    sizes = [rules.lines_of(function) for module in PACKAGES for _, function in rules.functions(module)]
    share = sum(size < MOST_FUNCTION_LINES for size in sizes) / len(sizes)
    report(
        f"house: {len(sizes)} functions, median {statistics.median(sizes):g} lines, "
        f"{share:.1%} below {MOST_FUNCTION_LINES}, longest {max(sizes)}"
    )
    assert share >= MOST


def test_everything_public_has_a_docstring() -> None:
    hold(rules.docstring_complaints(PACKAGES))


def test_every_public_name_has_one_home() -> None:
    hold(rules.home_complaints(PACKAGES, SHARED_NAMES))


def test_files_are_named_after_what_they_hold() -> None:
    hold(rules.name_complaints([module.path for module in (*PACKAGES, *TESTS)], NAMES_FOR_NOTHING))


def test_nothing_else_lies_at_the_top() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.suffix != ".egg-info"}
    hold(
        [
            f"{name}: the top level holds {', '.join(sorted(TOP_LEVEL))} and dotfiles only: move it below one of these"
            for name in sorted(found - TOP_LEVEL - MADE_BY_TOOLS)
        ]
    )


def test_no_test_is_skipped_without_a_reason() -> None:
    hold(rules.skip_complaints(TESTS))


# The rules themselves: each must see what it is there to see.


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("notifyd/hub/a.py", "from notifyd.connection.reader import x", "above it, on floor 3"),
        ("notifyd/hub/a.py", "def f():\n    import notifyd.node", "above it, on floor 4"),
        ("protocol/a.py", "from notifyd import model", "above it, on floor 1"),
        ("notifyd/client/a.py", "from notifyd.hub import x", "is a side door: it imports only protocol"),
        ("notifyd/hub/a.py", "import notifyd.client", "side door, used from floor 4 only"),
        ("notifyd/new/a.py", "", "stands on no floor"),
        ("notifyd/__init__.py", "from notifyd.hub import x", "front page"),
        ("notifyd/hub/a.py", "from notifyd.broker.base import x\nfrom protocol import codec", None),
        ("notifyd/cli/a.py", "from notifyd.client import x", None),
        ("notifyd/client/a.py", "from notifyd.transport.stream import x", None),
    ],
)
def test_the_floors_rule(path: str, line: str, complaint: str | None) -> None:
    complaints = rules.floor_complaints([rules.parse(path, line)], FLOORS, SIDE_DOORS, FRONT)
    assert [complaint in told for told in complaints] == [True] if complaint else complaints == []


def test_the_circles_rule() -> None:
    three = [
        rules.parse("notifyd/a.py", "import notifyd.b"),
        rules.parse("notifyd/b.py", "from notifyd.c import x"),
        rules.parse("notifyd/c.py", "def f():\n    from notifyd import a"),
    ]
    assert rules.circle_complaints(three)[0].startswith("notifyd.a -> notifyd.b -> notifyd.c -> notifyd.a: a circle")
    typing_only = rules.parse("notifyd/c.py", "if TYPE_CHECKING:\n    from notifyd import a")
    assert rules.circle_complaints([*three[:2], typing_only]) == []


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("import asyncio.tasks", True),
        ("from redis.asyncio import Redis", True),
        ("from redis import asyncio", True),
        ("from trio import to_thread", True),
        ("import redis", False),
        ("import trio", False),
    ],
)
def test_the_bans_rule(line: str, seen: bool) -> None:
    module = rules.parse("notifyd/hub/a.py", line)
    assert bool(rules.banned_import_complaints([module], BANNED, ALLOWED)) is seen
    assert rules.foreign_import_complaints([module], ("trio", "redis"), frozenset({"asyncio"})) == []
    assert rules.foreign_import_complaints([module], (), frozenset()) != []


def test_the_bans_rule_knows_who_is_allowed() -> None:
    at_home, elsewhere = (
        rules.parse(path, "import trio_websocket")
        for path in ("notifyd/transport/websocket.py", "notifyd/listeners/websocket.py")
    )
    (complaint,) = rules.banned_import_complaints([at_home, elsewhere], BANNED, ALLOWED)
    assert complaint.startswith("notifyd/listeners/websocket.py:1: imports trio_websocket: only transport/websocket.py")


def test_the_sizes_rule() -> None:
    module = rules.parse("notifyd/a.py", "class A:\n    def long(self):\n" + "        pass\n" * 3)
    assert rules.size_complaints([module], 5, 4) == []
    assert rules.size_complaints([module], 4, 3) == [
        "notifyd/a.py: 5 lines, at most 4: split it along what it knows",
        "notifyd/a.py:2: A.long takes 4 lines, at most 3",
    ]


def test_the_docstrings_rule() -> None:
    module = rules.parse(
        "a.py", "class A:\n    def b(self): ...\n    @b.setter\n    def b(self): ...\n    def _c(self): ..."
    )
    told = [complaint.split(":", 2)[-1].strip() for complaint in rules.docstring_complaints([module])]
    assert told[1:] == ["A is public and has no docstring", "A.b is public and has no docstring"]


def test_the_one_home_rule() -> None:
    modules = [rules.parse(f"{name}.py", "LIMIT = 1\nA: int = 2\n_x = 1\ndef run(): ...") for name in ("one", "two")]
    told = rules.home_complaints(modules, ["run"])
    assert [complaint.split(" ")[0] for complaint in told] == ["A", "LIMIT"]
    assert "one.py and two.py" in told[0]


def test_the_names_rule() -> None:
    assert (
        len(
            rules.name_complaints(
                ["notifyd/utils.py", "tests/helpers/a.py", "tests/test_misc.py", "a/b.py"], NAMES_FOR_NOTHING
            )
        )
        == 3
    )


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("@pytest.mark.skip\ndef f(): ...", True),
        ("@pytest.mark.skipif(True)\ndef f(): ...", True),
        ("@pytest.mark.xfail\ndef f(): ...", True),
        ("pytest.skip()", True),
        ("pytest.skip('no IPv6 here')", False),
        ("@pytest.mark.skip(reason='until the cluster exists')\ndef f(): ...", False),
        ("@pytest.mark.skipif(True, reason='no IPv6 here')\ndef f(): ...", False),
    ],
)
def test_the_skips_rule(line: str, seen: bool) -> None:
    assert bool(rules.skip_complaints([rules.parse("tests/a.py", line)])) is seen
