"""Every event loop that a test runs is watched: a task that holds it for long is named, and the test fails.

The instrument is the node's own, with another clock: the thread's CPU time, so that a busy machine is nobody's fault. A
test that does much between two checkpoints on purpose is marked `@pytest.mark.long_steps("why")`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from time import thread_time
from typing import Any

import pytest
import trio

from notifyd.events import NoEvents
from notifyd.telemetry.loop_lag import LoopLag

LONG_STEP_S = 0.5
"""CPU time of one step, in seconds, but for the collection of what all tests before have left. A node's steps take a
hundredth of it and less; coverage makes them several times slower, and who shares the machine's caches twice."""

TEST_STEP_S = 2.0
"""The same for a test's and a fixture's own task: it starts servers and fills queues before it looks."""


class _Ears(NoEvents):
    """Hears of long steps, whatever loop they are in."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Keep a long step; rounds may be as long as they like: how many tasks there are is the test's affair."""
        if event != "loop_held":
            return
        limit_s = TEST_STEP_S if fields["task"].startswith(("<test ", "<fixture ")) else LONG_STEP_S
        if fields["held_s"] - fields["gc_s"] >= limit_s:
            where = fields["at"] or "its end"
            self.told.append(f"{fields['task']} held the loop for {fields['held_s']} s of CPU time, up to {where}")


_ears = _Ears()


def watch_all_loops() -> None:
    """Let each `trio.run` have the instrument, those of Hypothesis' examples and of the simulation too."""
    trio.run = _watching(trio.run)


def _watching(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def run_watched(*args: Any, instruments: Sequence[trio.abc.Instrument] = (), **options: Any) -> Any:
        lag = LoopLag(_ears, now_s=thread_time, told_s=LONG_STEP_S)
        with lag.hearing_of_garbage():
            return run(*args, instruments=[*instruments, lag], **options)

    return run_watched


@contextmanager
def no_long_steps(name: str) -> Iterator[None]:
    """Fail what runs in the block when a task held the loop; what fails by itself fails as it would."""
    _ears.told = []
    yield
    told, _ears.told = _ears.told, []
    if told:
        advice = f'{name}: checkpoints are missing, or @pytest.mark.long_steps("why")'
        raise pytest.fail.Exception("\n".join([advice, *told]), pytrace=False)
