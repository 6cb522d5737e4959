"""What a load generator finds: moments while the load runs, and the report at its end.

Shares of a core are 1.0 for a whole one. Latencies are milliseconds, None where there was nothing to measure.
"""

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """How long an operation took, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Sample(msgspec.Struct, frozen=True):
    """One interval of a running load, of all its processes together.

    `at_s` is its end, in seconds since the load began; `operations` counts what the scenario is about (deliveries,
    replies, heartbeats answered, connects) since then, `rate` is of the interval, and so is `latency`.
    """

    at_s: float
    phase: str
    connections: int
    operations: int
    rate: float
    latency: Percentiles | None
    errors: int
    load_cpu: float
    """Of the busiest load process."""
    server_cpu: float | None = None
    server_memory_bytes: int | None = None


class LoadReport(msgspec.Struct, frozen=True):
    """What is told at the end; `--json` writes it as it is."""

    scenario: str
    unit: str
    """What is counted, in the plural: "deliveries", "replies", "heartbeats", "connects"."""
    url: str
    encoding: str
    processes: int
    options: dict[str, int | float | str]
    started_ms: int
    connections: int
    operations: int
    seconds: float
    """The measured part: from when everything was ready to the last operation."""
    rate: float
    latency: Percentiles | None
    histogram: list[tuple[float, int]]
    """(upper bound in milliseconds, count), without empty buckets."""
    phases: dict[str, float]
    """Seconds of each: "connect", "warm-up", "measure", "cut", "miss", "recover". Samples may be of "drain", too."""
    errors: dict[str, int]
    """How often each kind of error was met."""
    saturated: str | None
    """Why the load generator and not the server may have set the figure; None where it did not."""
    server_cpu: float | None
    server_memory_bytes: int | None
    samples: list[Sample]
    connection_memory_bytes: int | None = None
    """What the server's memory grew by for each connection that was opened."""


class Comparison(msgspec.Struct, frozen=True):
    """The same load before and after tuning."""

    before: LoadReport
    after: LoadReport
    tuning: dict[str, str]
    """Each tuned setting with what it was set to."""
