"""`notifyd check`."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from notifyd.cli.configuration import ConfigOption

if TYPE_CHECKING:
    from notifyd.settings import Address, Settings, Tls

SPARE_DESCRIPTORS = 100
"""What a node needs beside its connections: listeners, files, the broker."""


def check(config: ConfigOption = None) -> None:
    """Check the configuration. What it names is tried: keys, certificates, addresses, the broker."""
    from notifyd.cli.broker_trial import try_broker
    from notifyd.cli.collector_trial import try_collector
    from notifyd.cli.configuration import find_file, read_settings, source_of
    from notifyd.errors import ConfigurationError
    from notifyd.settings.checks import find_weaknesses
    from notifyd.settings.names import dotted

    source = source_of(config)
    settings = read_settings(config)
    warnings = [(dotted(place), reason) for place, reason in find_weaknesses(settings)]
    warnings += check_machine(settings, find_file(config), source)
    collector = try_collector(settings.tracing, source)
    if collector is not None:
        warnings.append(("tracing.endpoint", collector))
    try:
        broker = try_broker(settings.broker)
    except ConfigurationError as error:
        raise ConfigurationError(source, error.key, error.reason) from None
    for key, reason in warnings:
        print(f"warning: {source}: {key}: {reason}" if key else f"warning: {source}: {reason}")
    for line in summarize(settings, broker):
        print(line)
    print(f"{source}: ok")


def check_machine(settings: "Settings", path: Path | None, source: str) -> Iterator[tuple[str, str]]:
    """Try everything outside the file that the settings name; yield warnings. Raises ConfigurationError."""
    import resource

    if path is not None and path.stat().st_mode & 0o044 and (settings.auth.api_keys or settings.auth.keys):
        yield "", f"holds secrets and others on this machine can read it (chmod 600 {path})"
    if settings.listen.tls is not None:
        yield from _check_tls(settings.listen.tls, source)
    _check_listeners(settings, source)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections.limit + SPARE_DESCRIPTORS
    if most not in (resource.RLIM_INFINITY, -1) and most < wanted:
        yield "limits.connections.limit", f"needs {wanted} file descriptors and the system allows {most} (ulimit -n)"


def _check_tls(tls: "Tls", source: str) -> Iterator[tuple[str, str]]:
    from notifyd.cli.certificates import expiry_warnings
    from notifyd.errors import ConfigurationError
    from notifyd.transport.tls import server_context

    try:
        server_context(tls)
    except ConfigurationError as error:
        raise ConfigurationError(source, error.key, f"{error.source}: {error.reason}") from None
    yield from expiry_warnings(tls)


def _check_listeners(settings: "Settings", source: str) -> None:
    with ExitStack() as bound:
        for name, address in _listeners(settings):
            if address is not None:
                bound.enter_context(_bind(address, source, f"listen.{name}"))


def _listeners(settings: "Settings") -> "list[tuple[str, Address | None]]":
    listen = settings.listen
    return [("websocket", listen.websocket), ("device", listen.device), ("http", listen.http)]


def _bind(address: "Address", source: str, key: str) -> socket.socket:
    """Take the address as a node would. The caller closes the socket, which releases it."""
    from notifyd.errors import ConfigurationError

    hints = {
        errno.EADDRINUSE: "is in use: a node may be running already, else choose another port",
        errno.EACCES: "needs rights this user has not: choose a port from 1024 on",
        errno.EADDRNOTAVAIL: "is no address of this machine",
    }
    try:
        family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(source, key, f"{address} cannot be listened on: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(target)
        listening.listen()
    except OSError as error:
        listening.close()
        reason = hints.get(error.errno or 0, f"cannot be listened on: {error.strerror}")
        raise ConfigurationError(source, key, f"{address} {reason}") from None
    return listening


def summarize(settings: "Settings", broker: str) -> Iterator[str]:
    """Yield what the node would be, a line each."""
    from notifyd.settings import FIXED_SECTIONS
    from notifyd.settings.overlay import live_sections

    secured = "with TLS" if settings.listen.tls else "without TLS"
    for name, address in _listeners(settings):
        how = "" if name == "http" else f", {secured}"
        yield f"listen.{name}: off" if address is None else f"listen.{name}: {address} can be had{how}"
    yield f"broker.url: {settings.broker.url} {broker}"
    tracing = settings.tracing
    if tracing.endpoint is not None:
        share = f"{tracing.ratio:.0%} of what has no trace"
        yield f"tracing.endpoint: {tracing.endpoint} gets the traces that publishers sample, and {share}"
    keys, api_keys = len(settings.auth.keys), len(settings.auth.api_keys)
    access = "anonymous access" if settings.auth.anonymous else "tokens only"
    yield f"auth: {access}, {keys} key{'s'[: keys != 1]} for tokens, {api_keys} API key{'s'[: api_keys != 1]}"
    yield f"can change while the node runs: {', '.join(live_sections())}"
    yield f"need a restart: {', '.join(FIXED_SECTIONS)}"
