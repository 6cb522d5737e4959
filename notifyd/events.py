"""What the lower floors say about themselves, without knowing who listens.

A node hands one `Events` down; `notifyd.telemetry` implements it. Names and label values come from fixed sets: never a
user, a session, a topic, a token or a payload.
"""

from typing import Any, Protocol


class Events(Protocol):
    """Counts, observations and log lines. All are synchronous, never block and never raise."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter, such as `count("refusals", reason="origin")`."""

    def observe(self, name: str, value: float, times: int = 1, **labels: str) -> None:
        """Put a value into a histogram, `times` over; durations are in seconds."""

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write one structured line; `level` is debug, info, warning or error."""


class NoEvents:
    """Hears everything, says nothing: for parts used on their own."""

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Ignore the count."""

    def observe(self, name: str, value: float, times: int = 1, **labels: str) -> None:
        """Ignore the value."""

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Ignore the line."""
