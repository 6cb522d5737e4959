"""Logs, metrics and traces: what stands behind the `Events` and the `Tracer` that a node hands down."""

from notifyd.telemetry.telemetry import Telemetry
from notifyd.telemetry.tracer import open_tracer

__all__ = ["Telemetry", "open_tracer"]
