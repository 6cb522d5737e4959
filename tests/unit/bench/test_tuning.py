"""The same load before and after tuning, with runs that are made up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
import trio

from notifyd.bench import tuning
from notifyd.bench.load import Load, Scenario
from notifyd.bench.report import LoadReport, Sample
from notifyd.bench.tuning import TUNINGS, compare_tuning, tunings_of
from notifyd.errors import NotifydError
from notifyd.settings import Settings, load
from tests.unit.bench.reports import REPORT

EVERY = [pytest.param(one, id=one.key) for one in dict.fromkeys(one for some in TUNINGS.values() for one in some)]
MANY = Load(scenario=Scenario.TOPICS)


class Runs:
    """Stands for what runs a load: what it was asked for, and the rates it reports."""

    def __init__(self, *rates: float) -> None:
        self.asked: list[Load] = []
        self.titles: list[str] = []
        self.interrupted = trio.Event()
        self.interrupt_after: int | None = None
        self._rates = list(rates)

    async def run(
        self, load: Load, *, on_sample: Callable[[Sample], None], interrupted: trio.Event | None = None
    ) -> LoadReport:
        assert interrupted is self.interrupted
        self.asked.append(load)
        on_sample(REPORT.samples[0])
        if len(self.asked) == self.interrupt_after:
            self.interrupted.set()
        return msgspec.structs.replace(REPORT, rate=self._rates[len(self.asked) - 1])

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[Sample], None]]:
        self.titles.append(title)
        yield lambda _: None


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made_up = Runs(10, 25, 30, 35, 20, 15)
    monkeypatch.setattr(tuning, "run_load", made_up.run)
    return made_up


async def test_both_run_in_turns_and_the_median_is_reported(runs: Runs) -> None:
    comparison = await compare_tuning(MANY, runs.progress, interrupted=runs.interrupted)
    assert (comparison.before.rate, comparison.after.rate) == (20, 25)
    assert runs.titles == [f"{when} tuning, {number} of 3" for number in (1, 2, 3) for when in ("before", "after")]
    before, after = runs.asked[:2]
    assert runs.asked == [before, after] * 3
    assert before.settings == {one.key: one.default for one in TUNINGS[Scenario.TOPICS]}
    assert after.settings == {one.key: one.tuned for one in TUNINGS[Scenario.TOPICS]} == comparison.tuning


async def test_what_the_load_sets_holds_for_both(runs: Runs) -> None:
    asked = msgspec.structs.replace(MANY, settings={"topics": "[]", "log.level": '"error"'})
    comparison = await compare_tuning(asked, runs.progress, interrupted=runs.interrupted)
    assert [one.settings["topics"] for one in runs.asked] == ["[]"] * 6
    assert [one.settings["log.level"] for one in runs.asked] == ['"error"'] * 6
    assert list(comparison.tuning) == ["limits.messages"]


async def test_interrupted_it_compares_what_there_is(runs: Runs) -> None:
    runs.interrupt_after = 3
    comparison = await compare_tuning(MANY, runs.progress, interrupted=runs.interrupted)
    assert (comparison.before.rate, comparison.after.rate) == (10, 25)
    assert len(runs.asked) == 3


async def test_interrupted_too_early_there_is_nothing_to_compare(runs: Runs) -> None:
    runs.interrupt_after = 1
    with pytest.raises(NotifydError, match="interrupted before the load had run on both"):
        await compare_tuning(MANY, runs.progress, interrupted=runs.interrupted)


def test_another_ones_node_is_not_tuned() -> None:
    with pytest.raises(NotifydError, match="leave out the URL"):
        tunings_of(msgspec.structs.replace(MANY, url="ws://127.0.0.1:7500/ws"))


def test_where_nothing_helps_that_is_said() -> None:
    with pytest.raises(NotifydError, match="no setting makes heartbeats cheaper"):
        tunings_of(Load(scenario=Scenario.HEARTBEATS))
    assert set(TUNINGS) == set(Scenario)


def settings_with(key: str, value: str) -> Settings:
    """What a node has for settings with this one given in its environment."""
    name = "NOTIFYD_" + key.replace(".", "__").upper()
    return load(None, {"NOTIFYD_NODE__NAME": "n1", "NOTIFYD_AUTH__ANONYMOUS": "true", name: value}, {})


@pytest.mark.parametrize("one", EVERY)
def test_a_tuning_changes_what_is_the_default(one: tuning.Tuning) -> None:
    default, tuned = settings_with(one.key, one.default), settings_with(one.key, one.tuned)
    assert default != tuned
    if one.key == "topics":  # a node without entries has the same for all
        (policy,), nothing = default.topics, settings_with("topics", "[]")
        assert nothing.policy_for("a") == msgspec.structs.replace(policy, match=nothing.policy_for("a").match)
    else:
        assert default == settings_with("node.name", "n1")
