"""`--profile tuning`: the same load on a node as it comes, and on one with what an operator can set for such a load."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median_low
from typing import NamedTuple

import msgspec
import trio

from notifyd.bench.load import Load, Scenario
from notifyd.bench.report import Comparison, LoadReport, Sample
from notifyd.bench.running import run_load
from notifyd.errors import NotifydError

TUNING_ROUNDS = 3
"""So many times before and after, in turns: what else the machine does hits both."""


class Tuning(NamedTuple):
    """A setting worth changing for a kind of load: TOML as it comes and as it is tuned, why it helps, what it costs."""

    key: str
    default: str
    tuned: str
    why: str
    costs: str


CONNECTS = Tuning(
    "limits.connects",
    "{ rate = 500, burst = 100 }",
    "{ rate = 5000, burst = 1000 }",
    why="a crowd is let in as fast as the node can, not 500 a second",
    costs="until it is in, those who are connected wait longer for their messages",
)
MESSAGES = Tuning(
    "limits.messages",
    "{ rate = 100, burst = 200 }",
    "{ rate = 100000, burst = 10000 }",
    why="one publisher may send more than 100 messages a second",
    costs="a client that floods takes that much of the node before it is held back",
)
HISTORY = Tuning(
    "topics",
    '[{ match = "**", publish = "anyone", subscribe = "anyone" }]',
    '[{ match = "**", publish = "anyone", subscribe = "anyone", history = 0 }]',
    why="nothing is kept: some 400 bytes of memory less for each message that would be",
    costs="who was away cannot get what was missed, and is told so",
)
TUNINGS: dict[Scenario, tuple[Tuning, ...]] = {
    Scenario.CONNECT: (CONNECTS,),
    Scenario.IDLE: (),
    Scenario.FANOUT: (MESSAGES,),
    Scenario.TOPICS: (MESSAGES, HISTORY),
    Scenario.PUBLISH: (MESSAGES, HISTORY),
    Scenario.HEARTBEATS: (),
    Scenario.RECOVERY: (CONNECTS,),
}
"""What helps, by measurement. No setting makes the answer to a heartbeat cheaper; how many there are, clients say."""

Progress = Callable[[str], AbstractContextManager[Callable[[Sample], None]]]
"""Shows a run with this title: what `board.showing_progress` gives."""


async def compare_tuning(load: Load, progress: Progress, *, interrupted: trio.Event | None = None) -> Comparison:
    """Run a load on nodes of our own, untuned and tuned in turns; of each the run with the median rate is reported.

    What the load itself sets holds for both. Once `interrupted` is set, what is under way ends early, and nothing more
    is begun. Raises NotifydError where there is nothing to compare, then too.
    """
    tunings = [tuning for tuning in tunings_of(load) if tuning.key not in load.settings]
    before, after = (
        msgspec.structs.replace(load, settings={**{one.key: getattr(one, state) for one in tunings}, **load.settings})
        for state in ("default", "tuned")
    )
    runs: tuple[list[LoadReport], list[LoadReport]] = ([], [])
    for number in range(1, TUNING_ROUNDS + 1):
        for when, asked, reports in zip(("before", "after"), (before, after), runs, strict=True):
            if interrupted is not None and interrupted.is_set():
                break
            with progress(f"{when} tuning, {number} of {TUNING_ROUNDS}") as on_sample:
                reports.append(await run_load(asked, on_sample=on_sample, interrupted=interrupted))
    if not all(runs):
        raise NotifydError("notifyd bench: interrupted before the load had run on both nodes")
    untuned, tuned = map(_median_of, runs)
    return Comparison(untuned, tuned, {one.key: one.tuned for one in tunings})


def tunings_of(load: Load) -> tuple[Tuning, ...]:
    """Return what can be tuned for a load. Raises NotifydError where that is nothing, or the node is not ours."""
    if load.url is not None:
        raise NotifydError("notifyd bench: --profile tuning runs nodes of its own: leave out the URL")
    tunings = TUNINGS[load.scenario]
    if not tunings:
        raise NotifydError(f"notifyd bench: no setting makes {load.scenario} cheaper: there is nothing to compare")
    return tunings


def tuning_of(key: str) -> Tuning | None:
    """Return what is known of a tuned setting."""
    return next((one for tunings in TUNINGS.values() for one in tunings if one.key == key), None)


def _median_of(reports: list[LoadReport]) -> LoadReport:
    middle = median_low(report.rate for report in reports)
    return next(report for report in reports if report.rate == middle)
