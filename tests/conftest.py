"""What every test gets: options, the real-clock guard, Hypothesis profiles, and fixtures shared by all."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import hypothesis
import pytest

from notifyd.clock import Clock
from tests.long_steps import no_long_steps, watch_all_loops
from tests.recorded_events import RecordedEvents
from tests.stuck import guarded

pytest_plugins = ["tests.kit.redis_fixtures"]

ASYNC_GUARD_S = 30.0
"""Real seconds an async test may take: nothing sleeps in real time, so one that takes longer waits for ever.

A busy machine under coverage is ten times slower than a quiet one."""

OTHER_GUARD_S = 60.0
"""Real seconds for tests that start processes, or run many examples."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the reliability rows too")
    parser.addoption("--bench", action="store_true", help="run the measurements of tests/bench too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guard(seconds): real seconds the test may take before it is failed as stuck")
    config.addinivalue_line("markers", "long_steps(why): its tasks may hold the event loop for long")
    watch_all_loops()
    hypothesis.settings.load_profile(_profile(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, reason in (
        ("long", "long form: run with --long"),
        ("bench", "measurement: run with --bench"),
    ):
        if not config.getoption(f"--{marker}"):
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with guarded(item.nodeid, _guard_s(item)), _watched(item):
        return (yield)


def _watched(item: pytest.Item) -> AbstractContextManager[None]:
    may_be_long = item.get_closest_marker("long_steps") or item.get_closest_marker("bench")
    return nullcontext() if may_be_long else no_long_steps(item.nodeid)


def _guard_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("guard")
    if marker:
        return float(marker.args[0])
    if item.get_closest_marker("long") or item.get_closest_marker("bench"):
        return 3600.0
    many_examples = hasattr(getattr(item, "obj", None), "hypothesis")
    if many_examples and item.config.getoption("--long"):
        return 3600.0
    return ASYNC_GUARD_S if item.get_closest_marker("trio") and not many_examples else OTHER_GUARD_S


# A slow machine is no failure (deadline, too_slow). In CI the examples are the same in every run.
_common = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("default", _common, max_examples=50)
hypothesis.settings.register_profile("ci", _common, max_examples=50, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("long", _common, max_examples=2000, print_blob=True)


def _profile(config: pytest.Config) -> str:
    if config.getoption("--long"):
        return "long"
    return "ci" if os.environ.get("CI") else "default"


_REPORT = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a line to be printed after all tests: a measured figure, a ratio."""
    return request.config.stash.setdefault(_REPORT, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_REPORT, []):
        terminalreporter.write_line(line)


@pytest.fixture
def events() -> RecordedEvents:
    """Hears and keeps what the part under test counts and logs."""
    return RecordedEvents()


@pytest.fixture
def clock() -> Clock:
    """The clocks of a node; measures Trio's time, so with `autojump_clock` or `mock_clock` it is virtual."""
    return Clock()
