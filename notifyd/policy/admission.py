"""A connection limit with hysteresis: once full, nobody is let in until enough have left.

Without it a full server would let in one, refuse one, let in one, and every refused client's retry would be work.
"""


class Admission:
    """Counts connections; refuses above `limit`, and from then on until there are fewer than `resume`."""

    __slots__ = ("count", "limit", "refusing", "resume")

    def __init__(self, limit: int, resume: int) -> None:
        self.count = 0
        self.resize(limit, resume)

    def resize(self, limit: int, resume: int) -> None:
        """Let other limits hold from the next `admit` on, as if it had never been full.

        Raises ValueError for limits that contradict each other.
        """
        if not 1 <= resume <= limit:
            raise ValueError(f"resume must be between 1 and the limit of {limit}, not {resume}")
        self.limit = limit
        self.resume = resume
        self.refusing = False

    def admit(self) -> bool:
        """Count one more and return True, or return False. Each True is to be followed by one `release`."""
        threshold = self.resume if self.refusing else self.limit
        self.refusing = self.count >= threshold
        if not self.refusing:
            self.count += 1
        return not self.refusing

    def release(self) -> None:
        """Count one less. Raises ValueError when nobody is counted: a release without its admission."""
        if not self.count:
            raise ValueError("release without an admission")
        self.count -= 1
