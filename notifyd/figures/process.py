"""What this process takes of the machine."""

import os
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")
"""Sizes in pages, the second of them what is resident; source: proc(5)."""


class CpuMeter:
    """The share of one core that this process used between two looks."""

    def __init__(self) -> None:
        self._looked_s = time.perf_counter()
        self._used_s = time.process_time()

    def percent(self) -> float:
        """Return it since the last look; above 100 where more than one core was used."""
        now_s, used_s = time.perf_counter(), time.process_time()
        elapsed_s, spent_s = now_s - self._looked_s, used_s - self._used_s
        self._looked_s, self._used_s = now_s, used_s
        return 100 * spent_s / elapsed_s if elapsed_s > 0 else 0.0


def resident_bytes() -> int | None:
    """Return how much memory this process has; None where the system does not tell in Linux' way."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
