"""The trace that a message belongs to: the text of W3C Trace Context's `traceparent`, version 00.

`00-TRACE-PARENT-FLAGS`: 32, 16 and 2 hexadecimal digits in lower case. TRACE names the trace, PARENT the step of it
that comes before; of FLAGS bit 0 says that the trace is sampled: somebody keeps its steps.

Source: https://www.w3.org/TR/trace-context-2/ sections 2.2 and 2.3; spec/tracing.md.
"""

import re

TRACE_CHARACTERS = 55
"""The length of every trace of version 00, the only one that is passed on."""

KNOWN_FLAGS = 0b11
"""Sampled, and random: all that version 00 defines."""

_FORM = re.compile(r"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def read_trace(text: str) -> str | None:
    """Return a trace as version 00 writes it; None for what is none, which is to be ignored.

    Of a later version, whose text may go on after another `-`, what version 00 knows is taken.
    """
    found = _FORM.match(text)
    if found is None or found[1] == "ff":
        return None
    if found[1] == "00":
        return text if len(text) == TRACE_CHARACTERS else None
    if len(text) > TRACE_CHARACTERS and text[TRACE_CHARACTERS] != "-":
        return None
    return write_trace(found[2], found[3], int(found[4], 16))


def write_trace(trace_id: str, parent_id: str, flags: int) -> str:
    """Write a trace down; the ids are hexadecimal digits already."""
    return f"00-{trace_id}-{parent_id}-{flags & KNOWN_FLAGS:02x}"


def trace_id_of(trace: str) -> str:
    """Return the name of the whole trace, as it stands in logs; `trace` is what `read_trace` returned."""
    return trace[3:35]


def parent_id_of(trace: str) -> str:
    """Return the name of the step that comes before."""
    return trace[36:52]


def is_sampled(trace: str) -> bool:
    """Whether the steps of the trace are to be kept."""
    return int(trace[53:], 16) & 1 == 1
