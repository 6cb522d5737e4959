"""Where a node gets its tracer: one that keeps spans where traces are configured, else one that costs nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from notifyd.clock import Clock
from notifyd.errors import ConfigurationError
from notifyd.events import Events
from notifyd.settings import TracingSettings
from notifyd.tracing import NoTracer, Tracer


@asynccontextmanager
async def open_tracer(settings: TracingSettings, *, node: str, clock: Clock, events: Events) -> AsyncIterator[Tracer]:
    """Keep spans for the length of the block; those left at its end are sent within a deadline.

    OpenTelemetry is imported where an endpoint is configured, and only then. Raises ConfigurationError where it is
    configured and not installed.
    """
    if settings.endpoint is None:
        yield NoTracer()
        return
    require_opentelemetry()
    from notifyd.telemetry.traces import open_traces  # noqa: PLC0415 - a fifth of a second, and an extra

    async with open_traces(settings, settings.endpoint, node=node, clock=clock, events=events) as traces:
        yield traces


def require_opentelemetry() -> None:
    """Import what spans need. Raises ConfigurationError, which says what to install."""
    try:
        for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
            import_module(name)
    except ImportError as missing:
        reason = f"needs OpenTelemetry: pip install 'notifyd[tracing]' ({missing})"
        raise ConfigurationError("configuration", "tracing.endpoint", reason) from None
