"""Reports of loads that never ran: one to look at, and whatever Hypothesis can think of."""

from hypothesis import strategies as st

from notifyd.bench.report import LoadReport, Percentiles, Sample

LATENCY = Percentiles(mean=1.62, p50=1.21, p90=2.9, p99=6.4, p999=18.2, max=41.7)
HISTOGRAM = [(0.5, 1200), (0.8, 9100), (1.0, 14000), (1.25, 18000), (1.6, 9000), (2.5, 5200), (6.3, 3100), (40.0, 41)]


def sample_at(number: int, rate: float = 5965.0) -> Sample:
    is_ready = number > 4
    return Sample(
        at_s=number / 4,
        phase="measure" if is_ready else "connect",
        connections=1000 if is_ready else number * 200,
        operations=1491 if is_ready else 0,
        rate=rate * (0.8 + 0.05 * (number % 5)) if is_ready else 0.0,
        latency=LATENCY if is_ready else None,
        errors=0,
        load_cpu=0.42,
        server_cpu=0.8,
        server_memory_bytes=52_000_000 + (1000 if is_ready else number * 200) * 17_000,
    )


REPORT = LoadReport(
    scenario="fanout",
    unit="deliveries",
    url="ws://127.0.0.1:7500/ws",
    encoding="json",
    processes=2,
    options={"connections": 1000, "payload_bytes": 150},
    started_ms=1_764_138_960_000,
    connections=1000,
    operations=59_641,
    seconds=10.0,
    rate=5964.1,
    latency=LATENCY,
    histogram=HISTOGRAM,
    phases={"connect": 1.1, "measure": 10.0},
    errors={},
    saturated=None,
    server_cpu=0.83,
    server_memory_bytes=69_000_000,
    samples=[sample_at(number) for number in range(1, 45)],
    connection_memory_bytes=17_000,
)

EMPTY = LoadReport(
    scenario="idle",
    unit="heartbeats",
    url="",
    encoding="msgpack",
    processes=1,
    options={},
    started_ms=0,
    connections=0,
    operations=0,
    seconds=0.0,
    rate=0.0,
    latency=None,
    histogram=[],
    phases={},
    errors={},
    saturated=None,
    server_cpu=None,
    server_memory_bytes=None,
    samples=[],
)

HOSTILE = '<script src="https://evil.example/x.js">alert(1)</script>\x1b[2J\u202e[bold]&"\'%'

_amounts = st.floats(0, 1e9)
_counts = st.integers(0, 10**12)
_texts = st.one_of(st.just(HOSTILE), st.text(max_size=60))
_percentiles = st.builds(Percentiles, *[_amounts] * 6)
_samples = st.builds(
    Sample,
    at_s=st.floats(0, 1e6),
    phase=_texts,
    connections=_counts,
    operations=_counts,
    rate=_amounts,
    latency=st.none() | _percentiles,
    errors=_counts,
    load_cpu=st.floats(0, 64),
    server_cpu=st.none() | st.floats(0, 64),
    server_memory_bytes=st.none() | _counts,
)
REPORTS = st.builds(
    LoadReport,
    scenario=_texts,
    unit=_texts,
    url=_texts,
    encoding=_texts,
    processes=st.integers(1, 64),
    options=st.dictionaries(_texts, _counts | _amounts | _texts, max_size=4),
    started_ms=st.integers(-(10**15), 10**18),
    connections=_counts,
    operations=_counts,
    seconds=_amounts,
    rate=_amounts,
    latency=st.none() | _percentiles,
    histogram=st.lists(st.tuples(_amounts, st.integers(1, 10**9)), max_size=30).map(sorted),
    phases=st.dictionaries(_texts, _amounts, max_size=4),
    errors=st.dictionaries(_texts, _counts, max_size=4),
    saturated=st.none() | _texts,
    server_cpu=st.none() | st.floats(0, 64),
    server_memory_bytes=st.none() | _counts,
    samples=st.lists(_samples, max_size=12),
    connection_memory_bytes=st.none() | _counts,
)
"""Any report, with texts of strangers in it."""
