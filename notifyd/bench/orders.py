"""What a load process and its parent say to each other: JSON lines over its stdin and stdout.

The parent writes a LoadPlan, then Cues. The process writes a LoadSnapshot every TICK_S, and one whenever it has begun
a step or has reached its goal. Times are nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from enum import StrEnum

import msgspec

from notifyd.bench.histogram import LatencyHistogram
from notifyd.bench.load import Load, Scenario, TransportName

TICK_S = 0.25


class LoadTarget(msgspec.Struct, frozen=True):
    """Where the clients connect to, all names resolved."""

    transport: TransportName
    host: str
    ip: str
    port: int
    is_secure: bool
    authority: str
    path: str


class LoadPlan(msgspec.Struct, frozen=True):
    """One process's part of a load: of all links and publishers those whose number leaves `number` when divided.

    `run` is part of every topic's name: no two loads meet.
    """

    load: Load
    target: LoadTarget
    run: str
    number: int
    processes: int

    def share(self, count: int) -> range:
        """Return the numbers that are this process's, of so many."""
        return range(self.number, count, self.processes)

    def topic(self, number: int) -> str:
        """Name a topic."""
        return f"bench:{self.run}:{number}"

    def subscribers_of(self, topic: int) -> int:
        """Return how many links of all processes are subscribed to a topic."""
        nature = self.load.nature
        if self.load.scenario is Scenario.PUBLISH:
            return 0
        return nature.connections // nature.topics + (topic < nature.connections % nature.topics)


class LoadStep(StrEnum):
    """What a process is to do."""

    CONNECT = "connect"
    """Open all links; done when none is left."""
    LOAD = "load"
    """Do what the scenario is about, as fast as accepted or at the rate."""
    MEASURE = "measure"
    """From here on it counts."""
    QUIET = "quiet"
    """Begin nothing any more; done when nothing is waited for."""
    CUT = "cut"
    """Reset the links, all at once."""
    MISS = "miss"
    """Publish what those will have missed; done when all is accepted."""
    RECOVER = "recover"
    """Open the links again, each from its position; done when each has what it missed."""


class Cue(msgspec.Struct, frozen=True):
    """Begin a step, at a moment that is the same for all processes."""

    step: LoadStep
    at_ns: int


class LoadSnapshot(msgspec.Struct, frozen=True):
    """What a process has done up to now. Everything but `connections` only grows.

    `operations` and `histogram` count since MEASURE. Of all since the beginning, `arrived` counts the deliveries and
    `expected` those that were accepted publishes' due. `last_ns` is when the last operation was.
    """

    at_ns: int
    step: LoadStep | None
    is_done: bool
    is_measuring: bool
    connections: int
    operations: int
    arrived: int
    expected: int
    last_ns: int
    sent: int
    late: int
    """Of the `sent`, those that this process was late with."""
    histogram: LatencyHistogram
    errors: dict[str, int]
    cpu_s: float
    exhausted: str | None = None
    """What this process ran out of."""
