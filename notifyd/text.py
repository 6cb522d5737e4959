"""Words, numbers and curves as commands show them to people."""

from collections.abc import Sequence
from itertools import islice
from math import floor, log10

_UNITS = ("", "k", "M", "G", "T")
_BARS = "▁▂▃▄▅▆▇█"


def describe_duration(duration_ms: int) -> str:
    """Say a duration in its two largest units, such as `2h 5m`."""
    seconds = max(0, duration_ms // 1000)
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next((place for place, (_, size) in enumerate(sizes) if seconds >= size), len(sizes) - 1)
    pieces = []
    for unit, size in sizes[first : first + 2]:
        pieces.append(f"{seconds // size}{unit}")
        seconds %= size
    return " ".join(pieces)


def describe_number(number: float) -> str:
    """Say a number of at least 0 in about three figures, such as `0.4`, `12`, `1.23k` or `45.6M`."""
    power = 0 if number < 999.5 else min(len(_UNITS) - 1, floor(log10(number * 1.0005)) // 3)
    scaled = number / 1000**power
    places = 0 if scaled >= 99.95 or scaled == int(scaled) else 1 if scaled >= 9.995 or not power else 2
    return f"{scaled:.{places}f}{_UNITS[power]}"


def describe_bytes(size_bytes: float) -> str:
    """Say a number of bytes, such as `0 B` or `54.3 MB`."""
    number = describe_number(size_bytes)
    digits = number.rstrip("".join(_UNITS))
    return f"{digits} {number.removeprefix(digits)}B"


def printable(text: str) -> str:
    """Return a stranger's text with a question mark for all that could move the cursor or turn the line around."""
    return "".join(character if character.isprintable() else "?" for character in text)


def curve_of(values: Sequence[float], width: int) -> str:
    """Draw the newest values as bars, one character each, the highest of them in full height."""
    shown = list(islice(values, max(0, len(values) - width), None))
    most = max(shown, default=0.0) or 1.0
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in shown)
