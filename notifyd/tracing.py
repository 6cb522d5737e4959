"""The steps of a message's way, as the lower floors tell them, without knowing whether somebody keeps them.

A node hands one `Tracer` down; `notifyd.telemetry.traces` implements it where traces are configured. Names and values
come from fixed sets, but for the topic: never a user, a session, a token or a payload.
"""

from contextvars import ContextVar, Token
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from notifyd.errors import NotifydError
from protocol.errors import RequestError

CURRENT_TRACE: ContextVar[str | None] = ContextVar("trace", default=None)
"""The trace of what this task is at: log lines about trouble name it."""


class Step(StrEnum):
    """What a node does with a message."""

    ACCEPT = "accept"
    APPEND = "append"
    FAN_OUT = "fan-out"
    DELIVERY = "delivery"


class Span:
    """One step, as a `with` block or until `end`. This kind is told to nobody.

    `trace` is what the steps after this one belong to; None where the message has no trace.
    """

    __slots__ = ("_outer", "trace")

    def __init__(self, trace: str | None) -> None:
        self.trace = trace
        self._outer: Token[str | None] | None = None

    def __enter__(self) -> Self:
        self._outer = CURRENT_TRACE.set(self.trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the step. After a bug the trace stays the task's: the line that tells of it is written further out."""
        if self._outer is not None and not _is_bug(failure):
            CURRENT_TRACE.reset(self._outer)
        self.end(failure)

    def tell(self, **attributes: str | int | bool) -> None:
        """Add what became known of the step."""

    def end(self, failure: BaseException | None = None) -> None:
        """End the step, for one that is no `with` block."""


class _Untraced(Span):
    """Every step of every message without a trace: there is one of these, and nothing to do."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""


UNTRACED = _Untraced(None)
"""A step of a message that has no trace."""


class Tracer(Protocol):
    """Begins spans. It is synchronous, never blocks and never raises."""

    def begin(self, step: Step, topic: str, trace: str | None) -> Span:
        """Begin a step of a message; `trace` is what the step before left.

        A message that is accepted without a trace may be given one here.
        """


class NoTracer:
    """Keeps no steps: traces pass through as they came."""

    def begin(self, step: Step, topic: str, trace: str | None) -> Span:  # noqa: ARG002 - they concern nobody
        """Carry the trace on."""
        return UNTRACED if trace is None else Span(trace)


def _is_bug(failure: BaseException | None) -> bool:
    return isinstance(failure, Exception) and not isinstance(failure, RequestError | NotifydError)
