"""Logs and metrics: what stands behind the `Events` that a node hands down."""

from notifyd.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
