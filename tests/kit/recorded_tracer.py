"""The `Tracer` that tests hand down: keeps every step, and gives what follows a trace that names it."""

from dataclasses import dataclass, field
from typing import Any

from notifyd.tracing import UNTRACED, Span, Step
from protocol.trace import trace_id_of


class RecordedSpan(Span):
    """A step that tells its record what becomes of it."""

    def __init__(self, trace: str, record: "RecordedStep") -> None:
        super().__init__(trace)
        self._record = record

    def tell(self, **attributes: str | int | bool) -> None:
        self._record.attributes.update(attributes)

    def end(self, failure: BaseException | None = None) -> None:
        assert not self._record.ended, "a step ends once"
        self._record.ended, self._record.failure = True, failure


@dataclass
class RecordedStep:
    """`after` is the trace it was given, `trace` what it gives to those after it."""

    step: Step
    topic: str
    after: str
    trace: str
    attributes: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    failure: BaseException | None = None


class RecordedTracer:
    """Records the steps of every message that has a trace."""

    def __init__(self) -> None:
        self.steps: list[RecordedStep] = []

    def begin(self, step: Step, topic: str, trace: str | None) -> Span:
        if trace is None:
            return UNTRACED
        record = RecordedStep(step, topic, trace, f"00-{trace_id_of(trace)}-{len(self.steps) + 1:016x}-01")
        self.steps.append(record)
        return RecordedSpan(record.trace, record)

    def of(self, step: Step) -> list[RecordedStep]:
        return [record for record in self.steps if record.step is step]
