"""Keeps the same warning from filling the log: a pure decision; time is an argument."""

BURST = 5
"""Lines of one kind that are written in a window."""

WINDOW_S = 60.0
"""How long lines of one kind are counted together, in seconds."""

MAX_KINDS = 1000
"""Kinds of lines watched at once: a bound on memory, far above what a node has."""


class Repeats:
    """Which lines are written: the first few of their kind in each window."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, ...], tuple[float, int]] = {}

    def admit(self, kind: tuple[str, ...], now_s: float) -> int | None:
        """Return how many lines of this kind were left out before this one; None when this one is left out too."""
        began_s, lines = self._windows.get(kind, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            left_out = max(0, lines - BURST)
            self._windows[kind] = (now_s, 1)
            return left_out
        if kind not in self._windows and len(self._windows) >= MAX_KINDS:
            self._windows.pop(next(iter(self._windows)))
        self._windows[kind] = (began_s, lines + 1)
        return 0 if lines < BURST else None
