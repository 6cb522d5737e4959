"""Topics (`orders:status`) and patterns over them (`orders:*`, `metrics:**`).

Source: spec/wire.md, "Topics".
"""

import re
from functools import lru_cache

MAX_TOPIC_BYTES = 255
"""A topic's longest UTF-8 form: it fits one length byte, a log line and a Redis key comfortably."""

TOPICS_REMEMBERED = 4096
"""Topics known to be valid: those in use are few, and each comes again and again."""

SEPARATOR = ":"
ONE_PART = "*"
REST = "**"
RESERVED_PREFIX = "$"

_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
"""White space as Unicode defines it, and the control characters C0, DEL and C1."""


@lru_cache(maxsize=TOPICS_REMEMBERED)
def check_topic(topic: str) -> str:
    """Return `topic` as it came; raise ValueError that says what is wrong when it is not a valid topic."""
    _check_text(topic, "topic")
    if ONE_PART in topic:
        raise ValueError(f"topic {topic!r} contains '*', which stands only in patterns")
    return topic


def is_reserved(topic: str) -> bool:
    """Whether the topic belongs to the server (`$…`): clients may neither publish nor subscribe to it."""
    return topic.startswith(RESERVED_PREFIX)


class Pattern:
    """A compiled topic pattern: `*` is exactly one part, `**` (last only) is one part or more.

    Raises ValueError on a pattern that is no pattern. Patterns are equal when their text is.
    """

    __slots__ = ("_beginning", "_parts", "_rest", "text")

    def __init__(self, text: str) -> None:
        _check_text(text, "pattern")
        parts = text.split(SEPARATOR)
        for place, part in enumerate(parts, start=1):
            if part == REST and place != len(parts):
                raise ValueError(f"pattern {text!r} has '**' before its last part")
            if ONE_PART in part and part not in (ONE_PART, REST):
                raise ValueError(f"pattern {text!r} mixes '*' with other characters in the part {part!r}")
        self.text = text
        self._rest = parts[-1] == REST
        self._parts = parts[:-1] if self._rest else parts
        self._beginning = text.partition(ONE_PART)[0]

    def matches(self, topic: str) -> bool:
        """Whether a valid topic is covered by this pattern."""
        if not topic.startswith(self._beginning):
            return False
        parts = topic.split(SEPARATOR)
        if self._rest:
            if len(parts) <= len(self._parts):
                return False
        elif len(parts) != len(self._parts):
            return False
        return all(own in (ONE_PART, part) for own, part in zip(self._parts, parts, strict=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _check_text(text: str, kind: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{kind} is not valid UTF-8 text") from None
    if not 1 <= size_bytes <= MAX_TOPIC_BYTES:
        raise ValueError(f"{kind} has {size_bytes} bytes; 1 to {MAX_TOPIC_BYTES} are allowed")
    if (found := _FORBIDDEN.search(text)) is not None:
        raise ValueError(f"{kind} {text!r} contains {found[0]!r}: no white space and no control characters")
    if not all(text.split(SEPARATOR)):
        raise ValueError(f"{kind} {text!r} has an empty part: parts are separated by single colons")
