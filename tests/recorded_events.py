"""The `Events` that tests hand down: keeps everything, and refuses what telemetry would not know."""

from collections import Counter
from typing import Any

from notifyd.telemetry.counters import COUNTERS
from notifyd.telemetry.log import LEVELS, SECRET_FIELDS


class RecordedEvents:
    """Counts and log lines as they came. Knows the same counters, labels and levels as a node's telemetry."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        assert name in COUNTERS, f"no counter {name!r} in notifyd/telemetry/counters.py"
        assert set(labels) == set(COUNTERS[name].labels), f"{name} has the labels {COUNTERS[name].labels}, not {labels}"
        self.counts[name, tuple(sorted(labels.items()))] += amount

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

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every line of this event."""
        return [fields for _, known, fields in self.lines if known == event]
