"""Writes `spec/metrics.md` from the catalogue: `python -m notifyd.telemetry.document [DIRECTORY]`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from notifyd.telemetry.catalogue import COUNTERS, GAUGES, HISTOGRAMS, PREFIX, PROCESS, Metric

METRICS_FILE = "metrics.md"

_INTRODUCTION = """\
# Metrics

Generated from the code by `python -m notifyd.telemetry.document`. `GET /metrics` of the HTTP listener answers them in
Prometheus' text format. [`grafana-dashboard.json`](grafana-dashboard.json) shows them,
[`alert-rules.yaml`](alert-rules.yaml) watches them.

- Times are in seconds and sizes in bytes, as the name says. Counters end in `_total` and count since the start.
- The values of a label are those listed, never a user, a session or a topic: there are {series} series, however many
  clients there are, and each is there with 0 from the start.
- **Latency** is measured on the node that delivers: from when it was given the message, or, of a message that came by
  another node, from the time that Redis put on it (to the millisecond, and as good as the two clocks agree; never below
  0), until the sockets of this node's subscribers had been offered it. What then waits in the queue of a slow client is
  told by `notifyd_queue_bytes`. Each subscriber counts. Replayed messages do not.
- **Loop lag**: one round of the event loop is all work between two looks at the sockets. Whoever becomes ready in it
  waits for its end. [Who held it](operating.md#when-the-loop-is-late) is told from 0.05 s on.
- **Several workers** (`node.workers`): whichever is asked answers for all. Counters, histograms and gauges are added
  up, but for the gauges that say otherwise. What a worker has counted is kept by the parent when its process dies, as
  it was told at the last scrape: totals never run backwards, and what it counted since is lost. One that does not
  answer within 0.5 s counts with what it told last, without its gauges, and shows in
  `notifyd_workers{{state="silent"}}`. When the parent does not answer within 2 s, the scrape fails with 503: a part of
  the figures would look like a restart.
"""


def metrics_document() -> str:
    """Return the content of `spec/metrics.md`."""
    series = sum(len(metric.series()) for metric in (*COUNTERS.values(), *GAUGES.values()))
    buckets = sum(len(metric.series()) * (len(metric.bounds) + 3) for metric in HISTOGRAMS.values())
    parts = [
        _INTRODUCTION.format(series=series + buckets + len(PROCESS)),
        *_section("Counters", COUNTERS, "_total"),
        *_section("Gauges", GAUGES, ""),
        *_section("Histograms", HISTOGRAMS, ""),
        "## Process\n",
        "| metric | what |",
        "| --- | --- |",
        *(f"| `{name}` | {metric.help} |" for name, metric in PROCESS.items()),
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, metrics: Mapping[str, Metric], suffix: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| metric | what | labels |"
    yield "| --- | --- | --- |"
    for name, metric in metrics.items():
        yield f"| `{PREFIX}{name}{suffix}` | {metric.help}{_details(metric)} | {_labels(metric)} |"
    yield ""


def _details(metric: Metric) -> str:
    if metric.bounds:
        return f" Buckets from {metric.bounds[0]:g} to {metric.bounds[-1]:g} s."
    return " Of several workers, the highest." if metric.combine == "max" else ""


def _labels(metric: Metric) -> str:
    return "<br>".join(
        f"`{label}`: {', '.join(f'`{value}`' for value in values)}" for label, values in metric.labels.items()
    )


def write_document(directory: Path) -> None:
    """Write the file into `directory`."""
    (directory / METRICS_FILE).write_text(metrics_document(), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover
    write_document(Path(sys.argv[1] if len(sys.argv) > 1 else "spec"))
