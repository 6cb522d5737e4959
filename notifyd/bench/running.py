"""Running a load: the processes, their phases, and what they found."""

from collections.abc import Callable

import trio

from notifyd.bench.load import Load
from notifyd.bench.report import LoadReport, Sample


async def run_load(
    load: Load, *, on_sample: Callable[[Sample], None] = lambda _: None, interrupted: trio.Event | None = None
) -> LoadReport:
    """Run a load to its end and report it; `on_sample` hears of every interval (0.25 s).

    Once `interrupted` is set, it ends early with what was measured so far. Cancelled, there is no report. Whatever
    happens, every process that it started is ended and reaped. Raises NotifydError that says what to do.
    """
    raise NotImplementedError(load, on_sample, interrupted)
