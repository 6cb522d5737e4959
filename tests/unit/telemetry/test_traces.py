"""Spans by OpenTelemetry: whose child each is, what it tells, what is too much, and what becomes of failures."""

import sys
import threading
from collections.abc import Sequence
from contextvars import copy_context

import pytest
import trio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable, ConfigurationError
from notifyd.settings import TracingSettings, Url
from notifyd.telemetry.tracer import open_tracer
from notifyd.telemetry.traces import BURST_SPANS, SPANS_A_SECOND, WAITING_SPANS, Traces, traces_url
from notifyd.tracing import UNTRACED, NoTracer, Span, Step
from protocol.errors import ErrorCode, RequestError
from protocol.trace import is_sampled, parent_id_of, read_trace, trace_id_of
from tests.recorded_events import RecordedEvents

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = TRACE[:-1] + "0"


class Kit:
    """Traces that keep their spans at hand; `chance` is what the dice say next."""

    def __init__(self, ratio: float = 0.0) -> None:
        self.events = RecordedEvents()
        self.now_s = 0.0
        self.chance = 0.5
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        clock = Clock(monotonic_s=lambda: self.now_s)
        self.traces = Traces(provider, ratio, clock=clock, events=self.events, chance=lambda: self.chance)

    @property
    def spans(self) -> tuple:
        return self._exporter.get_finished_spans()


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_a_step_is_the_child_of_the_step_before_and_the_parent_of_the_next(kit: Kit) -> None:
    with kit.traces.begin(Step.ACCEPT, "a:b", TRACE) as accept, kit.traces.begin(Step.APPEND, "a:b", accept.trace):
        accept.tell(transport="http")
    append, accept_span = kit.spans
    assert (append.name, append.kind, accept_span.kind) == ("append", SpanKind.PRODUCER, SpanKind.SERVER)
    assert format(accept_span.context.trace_id, "032x") == trace_id_of(TRACE)
    assert format(accept_span.parent.span_id, "016x") == parent_id_of(TRACE)
    assert append.parent.span_id == accept_span.context.span_id
    assert (accept_span.parent.is_remote, append.parent.is_remote) == (True, False)
    assert accept_span.attributes == {
        "messaging.system": "notifyd",
        "messaging.destination.name": "a:b",
        "messaging.operation.name": "accept",
        "messaging.operation.type": "send",
        "notifyd.transport": "http",
    }
    assert accept.trace == read_trace(accept.trace)
    assert is_sampled(accept.trace)


def test_what_is_not_sampled_is_carried_on_and_not_kept(kit: Kit) -> None:
    for step in Step:
        with kit.traces.begin(step, "a:b", UNSAMPLED) as span:
            assert span.trace == UNSAMPLED
    assert kit.spans == ()


@pytest.mark.parametrize(("ratio", "chance", "begins"), [(0.0, 0.0, False), (0.1, 0.1, False), (0.1, 0.09, True)])
def test_a_share_of_what_comes_without_a_trace_begins_one(ratio: float, chance: float, begins: bool) -> None:
    kit = Kit(ratio)
    kit.chance = chance
    for step in (Step.APPEND, Step.FAN_OUT, Step.DELIVERY):
        assert kit.traces.begin(step, "a:b", None) is UNTRACED
    with kit.traces.begin(Step.ACCEPT, "a:b", None) as span:
        assert (span is UNTRACED) is not begins
    assert [span.parent for span in kit.spans] == [None] * begins


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (RequestError(ErrorCode.FORBIDDEN, "not 's3cr3t'"), "forbidden"),
        (BrokerUnavailable("s3cr3t"), "unavailable"),
        (ZeroDivisionError("s3cr3t"), "ZeroDivisionError"),
        (trio.Cancelled._create(), "Cancelled"),
    ],
)
def test_of_a_failure_its_kind_is_told_and_not_its_words(failure: BaseException, kind: str, kit: Kit) -> None:
    def fail() -> None:
        with pytest.raises(type(failure)), kit.traces.begin(Step.ACCEPT, "a:b", TRACE):
            raise failure

    copy_context().run(fail)  # as every task has its own
    (span,) = kit.spans
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, kind)
    assert "s3cr3t" not in span.to_json()


def end_many(kit: Kit, count: int) -> int:
    """Begin and end so many steps; return how many were kept."""
    before = len(kit.spans)
    for _ in range(count):
        span = kit.traces.begin(Step.APPEND, "a:b", TRACE)
        assert span.trace is not None
        assert trace_id_of(span.trace) == trace_id_of(TRACE)
        span.end()
    return len(kit.spans) - before


def test_more_than_so_many_a_second_are_left_out_and_counted(kit: Kit) -> None:
    assert end_many(kit, BURST_SPANS + 10) == BURST_SPANS
    assert kit.events.counted("spans_left_out", reason="rate") == 10
    kit.traces.exported(BURST_SPANS, None)
    kit.now_s = 0.5
    assert end_many(kit, BURST_SPANS) == SPANS_A_SECOND // 2
    assert kit.events.counted("spans_lost") == 0


def test_what_the_collector_does_not_take_does_not_pile_up(kit: Kit) -> None:
    kit.traces.waiting = WAITING_SPANS - 3
    assert end_many(kit, 10) == 3
    assert kit.events.counted("spans_left_out", reason="collector") == 7
    kit.traces.exported(WAITING_SPANS, "nobody is there")
    assert kit.events.counted("spans_lost") == WAITING_SPANS
    assert kit.events.logged("spans_not_exported") == [{"spans": WAITING_SPANS, "problem": "nobody is there"}]
    assert end_many(kit, 10) == 10


def test_a_new_trace_that_would_be_too_much_is_none(kit: Kit) -> None:
    kit = Kit(1.0)
    kit.traces.waiting = WAITING_SPANS
    assert kit.traces.begin(Step.ACCEPT, "a:b", None) is UNTRACED


def test_where_traces_go() -> None:
    whole = "http://h:4318/v1/traces"
    for endpoint in ("http://h:4318", "http://h:4318/", whole, whole + "/"):
        assert traces_url(Url(endpoint)) == whole
    assert traces_url(Url("https://h/otlp")) == "https://h/otlp/v1/traces"


async def test_without_an_endpoint_there_is_nothing_to_do(events: RecordedEvents, clock: Clock) -> None:
    async with open_tracer(TracingSettings(), node="n1", clock=clock, events=events) as tracer:
        assert isinstance(tracer, NoTracer)
        assert tracer.begin(Step.ACCEPT, "a:b", None) is UNTRACED
        carried = tracer.begin(Step.ACCEPT, "a:b", TRACE)
        assert (type(carried), carried.trace) == (Span, TRACE)


async def test_without_the_extra_it_says_what_to_install(
    events: RecordedEvents, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = TracingSettings(endpoint=Url("http://127.0.0.1:4318"))
    with pytest.raises(ConfigurationError, match=r"pip install 'notifyd\[tracing\]'") as refused:
        async with open_tracer(settings, node="n1", clock=clock, events=events):
            raise AssertionError("it was opened")
    assert refused.value.key == "tracing.endpoint"


async def test_the_end_does_not_wait_for_an_exporter_that_hangs(
    events: RecordedEvents, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, taken = threading.Event(), []

    def export(_exporter: OTLPSpanExporter, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        hangs.wait(10)
        taken.extend(spans)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    monkeypatch.setattr("notifyd.telemetry.traces.FLUSH_S", 0.05)
    settings = TracingSettings(endpoint=Url("http://127.0.0.1:9"))
    async with open_tracer(settings, node="n1", clock=clock, events=events) as traces:
        traces.begin(Step.ACCEPT, "a:b", TRACE).end()
    assert events.logged("spans_not_flushed") == [{"spans": 1}]
    hangs.set()
    while not taken:  # noqa: ASYNC110 - what a thread does is no event of ours
        await trio.sleep(0.01)


async def test_an_exporter_that_fails_keeps_no_place_in_the_queue(
    events: RecordedEvents, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(_exporter: OTLPSpanExporter, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise TimeoutError("the collector took too long")

    monkeypatch.setattr(OTLPSpanExporter, "export", export)
    monkeypatch.setattr("notifyd.telemetry.traces.SEND_AFTER_MS", 10)
    settings = TracingSettings(endpoint=Url("http://127.0.0.1:9"))
    async with open_tracer(settings, node="n1", clock=clock, events=events) as traces:
        assert isinstance(traces, Traces)
        traces.begin(Step.ACCEPT, "a:b", TRACE).end()
        with trio.fail_after(10):
            while traces.waiting:  # noqa: ASYNC110 - what a thread does is no event of ours
                await trio.sleep(0.01)
    problem = "TimeoutError: the collector took too long"
    assert events.logged("spans_not_exported") == [{"spans": 1, "problem": problem}]
    assert events.counted("spans_lost") == 1
