"""What a benchmark finds: a figure of notifyd beside what it is measured against, taken in the same run."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Result:
    """One line of the table. `figure` and `reference` are costs in `unit`: the less the better."""

    name: str
    unit: str
    figure: float
    reference: float
    against: str
    target: float | None = None

    @property
    def ratio(self) -> float:
        """How notifyd compares: above 1 it costs less than what it is measured against."""
        return self.reference / self.figure

    @property
    def verdict(self) -> str:
        """Whether the target is met; empty where none is set."""
        if self.target is None:
            return ""
        return "ok" if self.ratio >= self.target else "MISSED"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> "Result":
        """Read what `as_json` wrote."""
        return cls(**{name: value for name, value in kept.items() if name != "ratio"})


def compare(
    name: str, unit: str, against: str, rounds: Sequence[tuple[float, float]], *, target: float | None = None
) -> Result:
    """Make a result of rounds of (figure, reference) taken in turns: the round whose ratio is the median."""
    ratio = median(reference / figure for figure, reference in rounds)
    reference = median(reference for _, reference in rounds)
    return Result(name, unit, reference / ratio, reference, against, target)


def table(results: Sequence[Result]) -> str:
    """Lay results out for people."""
    header = ("what", "notifyd", "reference", "", "ratio", "target", "")
    lines = [
        (
            result.name,
            f"{result.figure:.2f} {result.unit}",
            f"{result.reference:.2f} {result.unit}",
            result.against,
            f"{result.ratio:.2f}",
            "" if result.target is None else f">= {result.target:g}",
            result.verdict,
        )
        for result in results
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    left, right = str.ljust, str.rjust
    aligned: tuple[Callable[[str, int], str], ...] = (left, right, right, left, right, left, left)
    return "\n".join(
        "  ".join(align(cell, width) for align, cell, width in zip(aligned, line, widths, strict=True)).rstrip()
        for line in [header, *lines]
    )
