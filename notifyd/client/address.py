"""Where a server is, read from a URL."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from notifyd.client.errors import BadAddress

WEBSOCKET_PATH = "/ws"

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "device": 7501, "device+tls": 7501}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server, and how to talk to it: WebSocket or device link, in the clear or over TLS."""

    url: str
    host: str
    port: int
    is_device: bool
    is_secure: bool
    target: str = WEBSOCKET_PATH

    @property
    def authority(self) -> str:
        """Host and port as an HTTP `Host` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(url: str) -> ServerAddress:
    """Read `ws://host:port/path`, `wss://…`, `device://host:port` or `device+tls://host:port`.

    The path of a WebSocket URL is `/ws` where none is given. Raises BadAddress that says what is wrong; a token or a
    password in a URL is refused too, since URLs end up in logs.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadAddress(f"{url!r} is no server URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        known = ", ".join(f"{scheme}://" for scheme in _DEFAULT_PORTS)
        raise BadAddress(f"{url!r} is no server URL: it begins with one of {known}")
    if not parts.hostname:
        raise BadAddress(f"{url!r} is no server URL: it names no host")
    if "@" in parts.netloc or "token=" in parts.query:
        raise BadAddress("a server URL carries no credentials: hand the token over by itself")
    is_device = parts.scheme.startswith("device")
    return ServerAddress(
        url=url,
        host=parts.hostname,
        port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        is_device=is_device,
        is_secure=parts.scheme in ("wss", "device+tls"),
        target=_device_target(parts) if is_device else _websocket_target(parts),
    )


def _websocket_target(parts: SplitResult) -> str:
    path = WEBSOCKET_PATH if parts.path in ("", "/") else parts.path
    target = f"{path}?{parts.query}" if parts.query else path
    if not target.isascii():
        raise BadAddress(f"{parts.geturl()!r} is no server URL: percent-encode what is not ASCII")
    return target


def _device_target(parts: SplitResult) -> str:
    if parts.path not in ("", "/") or parts.query:
        raise BadAddress(f"{parts.geturl()!r} is no server URL: a device link has a host and a port, and nothing more")
    return ""
