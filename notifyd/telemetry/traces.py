"""Spans by OpenTelemetry, sent to a collector by OTLP over HTTP. Imported only where traces are configured.

Spans begin and end on the loop and are queued there; the SDK's own thread encodes and sends them. What would be too
much is left out and counted, so that neither a crowd of traces nor a collector that is away slows the node.

Source: spec/tracing.md; attributes by the semantic conventions for messaging.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType

import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as KeptSpan

from notifyd import __version__
from notifyd.clock import Clock
from notifyd.errors import BrokerUnavailable
from notifyd.events import Events
from notifyd.policy.token_bucket import TokenBucket
from notifyd.settings import TracingSettings, Url
from notifyd.supervision import one_line
from notifyd.tracing import UNTRACED, Span, Step
from protocol.errors import RequestError
from protocol.trace import is_sampled, parent_id_of, trace_id_of, write_trace

SPANS_A_SECOND = 1_000
"""Some 45 microseconds each, and as much again to send: a tenth of a core at the most."""

BURST_SPANS = 2_000

WAITING_SPANS = 4_000
"""Spans that may wait for the collector, a kilobyte or two each: a few megabytes while it is away."""

BATCH_SPANS = 256
"""Encoded at once by the exporter's thread, which takes turns with the loop meanwhile: some milliseconds."""

SEND_AFTER_MS = 1_000
"""How long a span waits for others: an operator who tries it out looks at the collector at once."""

FLUSH_S = 2.0
"""What the collector gets to take the last spans when the node ends."""

TRACES_PATH = "/v1/traces"

EXPORTER_LOGGER = "opentelemetry"
"""What the SDK and the exporter have to say, they say here."""

_KINDS: Mapping[Step, SpanKind] = MappingProxyType(
    {
        Step.ACCEPT: SpanKind.SERVER,
        Step.APPEND: SpanKind.PRODUCER,
        Step.FAN_OUT: SpanKind.CONSUMER,
        Step.DELIVERY: SpanKind.PRODUCER,
    }
)
_OPERATION_TYPES: Mapping[Step, str] = MappingProxyType(
    {Step.ACCEPT: "send", Step.APPEND: "send", Step.FAN_OUT: "receive", Step.DELIVERY: "send"}
)
_FROM_ELSEWHERE = frozenset({Step.ACCEPT, Step.FAN_OUT})
"""Steps whose parent is, or may be, in another process."""


class _KeptStep(Span):
    """A step that the collector gets to know."""

    __slots__ = ("_on_end", "_span")

    def __init__(self, span: KeptSpan, on_end: Callable[[], None]) -> None:
        itself = span.get_span_context()
        trace_id, span_id = format_trace_id(itself.trace_id), format_span_id(itself.span_id)
        super().__init__(write_trace(trace_id, span_id, itself.trace_flags))
        self._span = span
        self._on_end = on_end

    def tell(self, **attributes: str | int | bool) -> None:
        """Add attributes, under the name of notifyd."""
        self._span.set_attributes({f"notifyd.{name}": value for name, value in attributes.items()})

    def end(self, failure: BaseException | None = None) -> None:
        """End the span; of a failure it tells the kind: the words may quote what is not to be told."""
        if failure is not None:
            self._span.set_attribute("error.type", _kind_of(failure))
            self._span.set_status(Status(StatusCode.ERROR))
        self._on_end()
        self._span.end()


class Traces:
    """The `notifyd.tracing.Tracer` of a node that keeps spans: those of sampled traces, as far as the bounds go."""

    def __init__(
        self,
        provider: TracerProvider,
        ratio: float,
        *,
        clock: Clock,
        events: Events,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._tracer = provider.get_tracer("notifyd", __version__)
        self._ratio = ratio
        self._clock = clock
        self._events = events
        self._chance = chance
        self._bucket = TokenBucket(SPANS_A_SECOND, BURST_SPANS, clock.monotonic_s())
        self.waiting = 0
        """Spans that have ended and that the exporter has not done with."""

    def begin(self, step: Step, topic: str, trace: str | None) -> Span:
        """Begin a step; see Tracer. Its parent is the step whose trace it got."""
        if trace is None:
            if step is not Step.ACCEPT or self._chance() >= self._ratio:
                return UNTRACED
        elif not is_sampled(trace):
            return Span(trace)
        if self._is_too_much():
            return UNTRACED if trace is None else Span(trace)
        attributes = {
            "messaging.system": "notifyd",
            "messaging.destination.name": topic,
            "messaging.operation.name": step.value,
            "messaging.operation.type": _OPERATION_TYPES[step],
        }
        parent = Context() if trace is None else _context_of(trace, is_remote=step in _FROM_ELSEWHERE)
        return _KeptStep(self._tracer.start_span(step.value, parent, _KINDS[step], attributes), self._ended)

    def _is_too_much(self) -> bool:
        if self.waiting >= WAITING_SPANS:
            self._events.count("spans_left_out", reason="collector")
        elif not self._bucket.take(self._clock.monotonic_s()):
            self._events.count("spans_left_out", reason="rate")
        else:
            return False
        return True

    def _ended(self) -> None:
        self.waiting += 1

    def exported(self, count: int, problem: str | None) -> None:
        """Take note that the exporter has done with spans; `problem` says why they are lost, None when they are not."""
        self.waiting -= count
        if problem is not None:
            self._events.count("spans_lost", count)
            self._events.log("warning", "spans_not_exported", spans=count, problem=problem)


class _Complaints(logging.Handler):
    """Keeps the newest complaint of the exporter: it returns no reasons, and its lines are no lines of ours."""

    newest = "no reason given"

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it."""
        self.newest = record.getMessage()


class _Reporting(SpanExporter):
    """The exporter, as its thread uses it; tells the loop what became of each batch."""

    def __init__(self, exporter: SpanExporter, complaints: _Complaints, loop: trio.lowlevel.TrioToken) -> None:
        self._exporter = exporter
        self._complaints = complaints
        self._loop = loop
        self.report: Callable[[int, str | None], None] = lambda _count, _problem: None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, and say on the loop how it went, whatever goes wrong: what waits is counted there."""
        try:
            result = self._exporter.export(spans)
            problem = None if result is SpanExportResult.SUCCESS else self._complaints.newest
        except Exception as failure:  # a library's: which ones depends on its version
            result, problem = SpanExportResult.FAILURE, one_line(failure)
        with suppress(trio.RunFinishedError):  # the node did not wait any longer
            self._loop.run_sync_soon(self.report, len(spans), problem)
        return result

    def shutdown(self) -> None:
        """Close the connection to the collector."""
        self._exporter.shutdown()


@asynccontextmanager
async def open_traces(
    settings: TracingSettings, endpoint: Url, *, node: str, clock: Clock, events: Events
) -> AsyncIterator[Traces]:
    """Keep spans for the length of the block, and send what is left within FLUSH_S.

    The exporter's further settings (headers, timeout, certificates) are the environment's, as OpenTelemetry names them.
    """
    complaints = _Complaints()
    logger = logging.getLogger(EXPORTER_LOGGER)
    logger.addHandler(complaints)
    exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), meter_provider=NoOpMeterProvider())
    reporting = _Reporting(exporter, complaints, trio.lowlevel.current_trio_token())
    provider = _provider(settings.service, node, reporting)
    traces = Traces(provider, settings.ratio, clock=clock, events=events)
    reporting.report = traces.exported
    try:
        yield traces
    finally:
        with trio.move_on_after(FLUSH_S, shield=True) as patience:
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
        if patience.cancelled_caught:
            events.log("warning", "spans_not_flushed", spans=traces.waiting)
        logger.removeHandler(complaints)


def _provider(service: str, node: str, exporter: SpanExporter) -> TracerProvider:
    resource = Resource.create({"service.name": service, "service.instance.id": node, "service.version": __version__})
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=2 * WAITING_SPANS,  # never full: those that wait are counted here
            schedule_delay_millis=SEND_AFTER_MS,
            max_export_batch_size=BATCH_SPANS,
        )
    )
    return provider


def traces_url(endpoint: Url) -> str:
    """Return where traces go: OpenTelemetry's endpoints are those of a collector, or of its traces already."""
    url = endpoint.reveal().rstrip("/")
    return url if url.endswith(TRACES_PATH) else url + TRACES_PATH


def _context_of(trace: str, *, is_remote: bool) -> Context:
    parent = SpanContext(
        trace_id=int(trace_id_of(trace), 16),
        span_id=int(parent_id_of(trace), 16),
        is_remote=is_remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _kind_of(failure: BaseException) -> str:
    if isinstance(failure, RequestError):
        return failure.reason
    return "unavailable" if isinstance(failure, BrokerUnavailable) else type(failure).__name__
