"""How a figure grows: what a benchmark finds where one number would not tell it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Curve:
    """One plot. `lines` is the name of each line with its points, x ascending; None for y: it could not be reached."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[Any]]
    log_x: bool = False
    log_y: bool = False
