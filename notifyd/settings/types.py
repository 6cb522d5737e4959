"""The configuration as typed, frozen structs. TOML names are those of the file; Python names carry their unit.

The defaults here are the defaults of a node. Source: the README's configuration section.
"""

import secrets
import socket
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from notifyd.settings.values import Address, Bytes, Network, Seconds, Secret, Url
from protocol.codec import DEFAULT_PAYLOAD_LIMIT_BYTES
from protocol.topics import Pattern, is_reserved

MAX_HISTORY = 1_000_000
"""Messages kept of one topic: more is a database's work, and a typing error here would fill the memory."""

MAX_NAME_CHARACTERS = 128

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Quantity: TypeAlias = Annotated[float, Meta(gt=0, le=1e9)]

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""The signature algorithms of tokens (RFC 7518 section 3.1, RFC 8037 section 3.1)."""


LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "json", "text"]


class Overflow(StrEnum):
    """What becomes of a subscriber whose unsent messages fill its queue."""

    DISCONNECT = "disconnect"
    GAP = "gap"
    DROP_OLDEST = "drop_oldest"
    LATEST = "latest"


class Access(StrEnum):
    """Who may do it: whom a token allows, anyone, or only a backend by the HTTP API."""

    TOKEN = "token"
    ANYONE = "anyone"
    SERVICE = "service"


FIXED_SECTIONS = ("node", "listen", "broker", "tracing", "debug")
"""Sections whose changes need a restart: they name what was opened at the start."""


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the file."""


@cache
def _make_node_name() -> str:
    """Name this process once: a reload must not find it renamed."""
    host = socket.gethostname()[: MAX_NAME_CHARACTERS - 7] or "node"
    return f"{host}-{secrets.token_hex(3)}"


class NodeSettings(_Section, frozen=True, kw_only=True):
    """`[node]`: its name, the seconds over which SIGTERM spreads its clients, and its processes."""

    name: Name = msgspec.field(default_factory=_make_node_name)
    drain_s: Seconds = msgspec.field(name="drain", default=5.0)
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1


class Tls(_Section, frozen=True, kw_only=True):
    """`[listen] tls`: PEM files. With `client_ca`, a client must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class ProxyProtocol(_Section, frozen=True, kw_only=True):
    """`[listen] proxy_protocol`: for each listener, the proxies whose connections begin with a PROXY header."""

    websocket: tuple[Network, ...] = ()
    device: tuple[Network, ...] = ()


class ListenSettings(_Section, frozen=True, kw_only=True):
    """`[listen]`: where; None is off. `tls` holds for the WebSocket and the device listener.

    `trusted_proxies` are those whose `X-Forwarded-For` is believed, on the WebSocket and the HTTP listener.
    """

    websocket: Address | None = Address("127.0.0.1", 7500)
    device: Address | None = Address("127.0.0.1", 7501)
    http: Address | None = Address("127.0.0.1", 7502)
    tls: Tls | None = None
    proxy_protocol: ProxyProtocol = ProxyProtocol()
    trusted_proxies: tuple[Network, ...] = ()


class BrokerSettings(_Section, frozen=True, kw_only=True):
    """`[broker]`: which one, and the bytes the embedded one may keep.

    Of a shared one: the prefix of its keys, the seconds within which it answers or is away, and how many replicas must
    have a message before it counts as accepted.
    """

    url: Url = Url("memory://")
    prefix: Name = "notifyd"
    memory_bytes: Bytes = msgspec.field(name="memory", default=256 * 2**20)
    timeout_s: Seconds = msgspec.field(name="timeout", default=0.8)
    replicas: Annotated[int, Meta(ge=0, le=10)] = 0


class TokenKey(_Section, frozen=True, kw_only=True):
    """One of `auth.keys`: a secret for HS*, a PEM public key for the others, or a JSON Web Key Set (JSON text).

    `algorithm` may be left out with `jwks` alone, where each key of the set names its own.
    """

    algorithm: Algorithm | None = None
    secret: Secret | None = None
    public_key: str | None = None
    jwks: str | None = None
    kid: Name | None = None


class AuthSettings(_Section, frozen=True, kw_only=True):
    """`[auth]`: who may connect. `origins` None allows browsers of the same host only."""

    anonymous: bool = False
    origins: tuple[str, ...] | None = None
    keys: tuple[TokenKey, ...] = ()
    issuer: Name | None = None
    audience: Name | None = None
    leeway_s: Seconds = msgspec.field(name="leeway", default=0.0)
    api_keys: tuple[Secret, ...] = ()


class HeartbeatSettings(_Section, frozen=True, kw_only=True):
    """`[heartbeat]`: seconds between beats, beats that may be missed, and what a client may ask for."""

    interval_s: Seconds = msgspec.field(name="interval", default=30.0)
    misses: Annotated[int, Meta(ge=1, le=1000)] = 2
    floor_s: Seconds = msgspec.field(name="floor", default=10.0)
    minimum_s: Seconds = msgspec.field(name="minimum", default=1.0)
    maximum_s: Seconds = msgspec.field(name="maximum", default=3600.0)


class ConnectionLimit(_Section, frozen=True, kw_only=True):
    """`limits.connections`: above `limit` new ones are refused until there are fewer than `resume`.

    Without `resume` (or with 0) it is nine tenths of the limit.
    """

    limit: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    resume: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Fill in `resume`."""
        if not self.resume:
            msgspec.structs.force_setattr(self, "resume", max(1, self.limit * 9 // 10))


class Rate(_Section, frozen=True, kw_only=True):
    """A token bucket: `rate` a second, `burst` at once."""

    rate: Quantity
    burst: Annotated[float, Meta(ge=1, le=1e9)]


class LimitSettings(_Section, frozen=True, kw_only=True):
    """`[limits]`: what one client, and all together, may use.

    `connects` paces the clients that come at the same time: they wait for their turn, for `handshake` at most.
    """

    payload_bytes: Bytes = msgspec.field(name="payload", default=DEFAULT_PAYLOAD_LIMIT_BYTES)
    connections: ConnectionLimit = ConnectionLimit()
    connects: Rate = Rate(rate=500, burst=100)
    handshake_s: Seconds = msgspec.field(name="handshake", default=10.0)
    queue_bytes: Bytes = msgspec.field(name="queue", default=2**20)
    messages: Rate = Rate(rate=100, burst=200)
    user_messages: Rate | None = None


class SessionSettings(_Section, frozen=True, kw_only=True):
    """`[sessions]`: how long after its connection a session can be resumed."""

    ttl_s: Seconds = msgspec.field(name="ttl", default=300.0)


class TopicPolicy(_Section, frozen=True, kw_only=True):
    """One `[[topics]]` entry: what holds for the topics its pattern matches."""

    match: Pattern
    history: Annotated[int, Meta(ge=0, le=MAX_HISTORY)] = 1000
    ttl_s: Seconds = msgspec.field(name="ttl", default=3600.0)
    presence: bool = True
    joins: bool = False
    trace: bool = False
    overflow: Overflow = Overflow.DISCONNECT
    publish: Access = Access.TOKEN
    subscribe: Access = Access.TOKEN


class TracingSettings(_Section, frozen=True, kw_only=True):
    """`[tracing]`: where spans are sent, by OTLP over HTTP; None makes none.

    `ratio` is the share of publishes without a trace that begin one; `service` names this service to those who look.
    """

    endpoint: Url | None = None
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.0
    service: Name = "notifyd"


class LogSettings(_Section, frozen=True, kw_only=True):
    """`[log]`: the least level that is logged, and how: "auto" is text for a terminal and JSON for anything else."""

    level: LogLevel = "info"
    format: LogFormat = "auto"


class DebugSettings(_Section, frozen=True, kw_only=True):
    """`[debug]`: `echo` serves `/echo` on the WebSocket listener, for conformance suites."""

    echo: bool = False


_CATCH_ALL = TopicPolicy(match=Pattern("**"))
_OPEN_CATCH_ALL = TopicPolicy(match=Pattern("**"), publish=Access.ANYONE, subscribe=Access.ANYONE)
_RESERVED = TopicPolicy(
    match=Pattern("**"), history=0, presence=False, overflow=Overflow.DROP_OLDEST, publish=Access.SERVICE
)
"""Of what the server says about itself (`$…`): the newest counts, and nobody is disconnected for reading slowly."""


class Settings(_Section, frozen=True, kw_only=True):
    """The whole configuration of a node."""

    node: NodeSettings = msgspec.field(default_factory=NodeSettings)
    listen: ListenSettings = ListenSettings()
    broker: BrokerSettings = BrokerSettings()
    auth: AuthSettings = AuthSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    limits: LimitSettings = LimitSettings()
    sessions: SessionSettings = SessionSettings()
    topics: tuple[TopicPolicy, ...] = ()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()
    debug: DebugSettings = DebugSettings()

    def policy_for(self, topic: str) -> TopicPolicy:
        """Return the first entry whose pattern matches the topic, else the implied catch-all.

        Reserved topics (`$…`) have a policy of their own, whatever is configured.
        """
        if is_reserved(topic):
            return _RESERVED
        for policy in self.topics:
            if policy.match.matches(topic):
                return policy
        return _OPEN_CATCH_ALL if self.auth.anonymous else _CATCH_ALL

    @classmethod
    def demo(cls, *origins: str) -> "Settings":
        """Return what `notifyd demo` runs: the usual ports on loopback, the embedded broker, anonymous access.

        Pages of these origins may connect.
        """
        return cls(auth=AuthSettings(anonymous=True, origins=origins or None))
