"""A collector of traces: an HTTP server in the test's own process that reads OTLP and keeps the spans.

async with open_collector() as collector:
    ... tracing = TracingSettings(endpoint=Url(collector.url)) ...
    spans = await collector.wait(lambda spans: len(spans) >= 6)
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import h11
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from protocol.trace import write_trace

PATH = b"/v1/traces"


@dataclass(frozen=True)
class CollectedSpan:
    """A span as the collector got it; ids are hexadecimal, `parent` is "" for the first of a trace."""

    node: str
    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    kind: int
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, object] = field(hash=False)

    @property
    def trace(self) -> str:
        """What the steps after it belong to."""
        return write_trace(self.trace_id, self.id, 1)


class Collector:
    """What was sent; `status` is what it answers, and while `silent` it answers nothing."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[CollectedSpan] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.silent = False
        self._arrived = trio.Event()

    async def wait(self, enough: Callable[[list[CollectedSpan]], bool]) -> list[CollectedSpan]:
        """Wait for spans; the test's own guard ends a wait for what does not come."""
        while not enough(self.spans):
            await self._arrived.wait()
        return self.spans

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            with suppress(trio.BrokenResourceError):  # an exporter that ends has no manners
                await self._answer(connection, stream)

    async def _answer(self, connection: h11.Connection, stream: trio.SocketStream) -> None:
        while (body := await self._read(connection, stream)) is not None:
            if self.silent:
                await trio.sleep_forever()
            if self.status == 200:
                self._take(body)
            answer = h11.Response(status_code=self.status, headers=[("content-length", "0")])
            await stream.send_all(connection.send(answer) + connection.send(h11.EndOfMessage()))
            connection.start_next_cycle()

    async def _read(self, connection: h11.Connection, stream: trio.SocketStream) -> bytes | None:
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                assert (event.method, event.target) == (b"POST", PATH)
                self.headers.append({name.decode(): value.decode() for name, value in event.headers})
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                return body if isinstance(event, h11.EndOfMessage) else None

    def _take(self, body: bytes) -> None:
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_read_span(span, resource) for span in scope.spans]
        self._arrived.set()
        self._arrived = trio.Event()


def _read_span(span, resource: dict[str, object]) -> CollectedSpan:  # noqa: ANN001 - protobuf's
    return CollectedSpan(
        node=str(resource["service.instance.id"]),
        service=str(resource["service.name"]),
        name=span.name,
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: list[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@asynccontextmanager
async def open_collector() -> AsyncIterator[Collector]:
    """Run a collector on a free port."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    collector = Collector(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, collector.serve, [listener])
        yield collector
        nursery.cancel_scope.cancel()
