"""What `notifyd check` tries of the collector of traces."""

import socket
from typing import TYPE_CHECKING

from notifyd.errors import ConfigurationError
from notifyd.telemetry.tracer import require_opentelemetry

if TYPE_CHECKING:
    from notifyd.settings import TracingSettings, Url

CONNECT_TRIAL_S = 2.0
"""For a collector on another machine that does not answer."""


def try_collector(settings: "TracingSettings", source: str) -> str | None:
    """Connect to the collector; say what is wrong when that cannot be: a node serves without it all the same.

    Raises ConfigurationError where OpenTelemetry is not installed.
    """
    if settings.endpoint is None:
        return None
    try:
        require_opentelemetry()
    except ConfigurationError as error:
        raise ConfigurationError(source, error.key, error.reason) from None
    try:
        socket.create_connection(_place(settings.endpoint), CONNECT_TRIAL_S).close()
    except OSError as failure:
        return f"nobody takes spans at {settings.endpoint}: {failure.strerror or failure}"
    return None


def _place(endpoint: "Url") -> tuple[str, int]:
    assert endpoint.host is not None  # checked with the settings
    return endpoint.host, endpoint.port or (443 if endpoint.scheme == "https" else 80)
