"""The `Events` that tests hand down: keeps everything, and refuses what telemetry would not know."""

from collections import Counter
from typing import Any

from notifyd.telemetry.catalogue import COUNTERS, HISTOGRAMS, OTHER, Metric
from notifyd.telemetry.log import LEVELS, SECRET_FIELDS


class RecordedEvents:
    """Counts and log lines as they came. Knows the same counters, labels and levels as a node's telemetry."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.observations: list[tuple[str, float, int, dict[str, str]]] = []
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        assert name in COUNTERS, f"no counter {name!r} in notifyd/telemetry/catalogue.py"
        _check_labels(name, COUNTERS[name], labels)
        self.counts[name, tuple(sorted(labels.items()))] += amount

    def observe(self, name: str, value: float, times: int = 1, **labels: str) -> None:
        assert name in HISTOGRAMS, f"no histogram {name!r} in notifyd/telemetry/catalogue.py"
        _check_labels(name, HISTOGRAMS[name], labels)
        self.observations.append((name, value, times, labels))

    def log(self, level: str, event: str, **fields: Any) -> None:
        assert level in LEVELS, f"no level {level!r}"
        assert not SECRET_FIELDS.intersection(fields), f"{event} tells secrets: {SECRET_FIELDS.intersection(fields)}"
        self.lines.append((level, event, fields))

    def counted(self, name: str, **labels: str) -> int:
        """Return how often `name` was counted with (at least) these labels."""
        return sum(
            amount
            for (known, having), amount in self.counts.items()
            if known == name and labels.items() <= dict(having).items()
        )

    def observed(self, name: str) -> list[float]:
        """Return the values that a histogram got, each as often as it got it."""
        return [value for known, value, times, _ in self.observations if known == name for _ in range(times)]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every line of this event."""
        return [fields for _, known, fields in self.lines if known == event]


def _check_labels(name: str, metric: Metric, labels: dict[str, str]) -> None:
    assert set(labels) == set(metric.labels), f"{name} has the labels {set(metric.labels)}, not {labels}"
    for label, value in labels.items():
        known = metric.labels[label]
        assert value in known or OTHER in known, f"{name}: {label} has the values {known}, not {value!r}"
