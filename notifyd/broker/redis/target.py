"""Where the Redis of a node is, read from `broker.url`: one server, one behind Sentinels, or a Cluster.

    redis://user:password@host:6379/0        rediss://…            unix:///run/redis/redis.sock?db=0
    redis+sentinel://h1:p1,h2:p2/service/0   rediss+sentinel://…   redis+cluster://h1:p1,h2:p2   rediss+cluster://…

Options stand in the query under the names they have in redis-py: `db`, and with TLS `ssl_ca_certs`, `ssl_certfile`,
`ssl_keyfile`, `ssl_check_hostname`; for Sentinels that want credentials of their own `sentinel_username` and
`sentinel_password`. Without `ssl_ca_certs` the machine's authorities are trusted; verifying cannot be switched off.

Source: redis.connection.parse_url, which reads all that a URL for a single server has in common with the others.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlsplit

from redis.connection import parse_url

Kind: TypeAlias = Literal["standalone", "sentinel", "cluster"]

REDIS_PORT = 6379
SENTINEL_PORT = 26379

EXPECTED = (
    "expected redis://host:port/db, rediss://host:port/db, unix:///path, redis+sentinel://h1:p1,h2:p2/service/db or "
    "redis+cluster://h1:p1,h2:p2 (rediss+sentinel:// and rediss+cluster:// with TLS)"
)

_KINDS: Mapping[str, Kind] = {
    "redis": "standalone",
    "rediss": "standalone",
    "unix": "standalone",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/@,]+)(?::([0-9]{1,5}))?")
_OPTION_NAME = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one server listens: host (without brackets) and port, or the path of its unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a link authenticates as: the user "" is the server's default user. Says nothing in str and repr."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.password)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How servers are verified, and what they are shown: paths of PEM files, "" where there is none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Load the files: TLS 1.2 and above, the server's certificate required. It blocks: for start-up.

        Raises ValueError that names what cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"broker.url: ssl_ca_certs={self.ca}: {_reason(error)}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.check_hostname
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key or None, password=b"")  # nobody is asked for one
            except (OSError, ssl.SSLError) as error:
                files = f"ssl_certfile={self.certificate}, ssl_keyfile={self.key or self.certificate}"
                raise ValueError(f"broker.url: {files}: {_reason(error)}") from None
        return context


@dataclass(frozen=True, slots=True)
class Target:
    """What `broker.url` says. str and repr leave the credentials out.

    `endpoints` are the server itself, the Sentinels, or the members of a Cluster to ask first; `service` is the name
    under which Sentinels know their master. `tls` is None in the clear.
    """

    kind: Kind
    endpoints: tuple[Endpoint, ...]
    service: str = ""
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    database: int = 0
    tls: TlsOptions | None = None

    @property
    def username(self) -> str:
        """The user; "" is the server's default user."""
        return self.credentials.username

    @property
    def password(self) -> str:
        """The password, "" where there is none. Never hand it to a log line or an error."""
        return self.credentials.password

    def __str__(self) -> str:
        hidden = "hidden@" if self.credentials else ""
        first = self.endpoints[0]
        if first.path:
            return f"unix://{hidden}{first.path}?db={self.database}"
        scheme = "redis" if self.tls is None else "rediss"
        if self.kind != "standalone":
            scheme = f"{scheme}+{self.kind}"
        path = {"standalone": f"/{self.database}", "sentinel": f"/{self.service}/{self.database}", "cluster": ""}
        return f"{scheme}://{hidden}{','.join(map(str, self.endpoints))}{path[self.kind]}"

    def __repr__(self) -> str:
        return f"Target({str(self)!r})"


def parse_target(url: str) -> Target:
    """Read `broker.url`. Raises ValueError that says what was expected and never repeats what may be a secret."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _KINDS:
        raise _wrong(EXPECTED)
    kind = _KINDS[scheme]
    parts = _split(scheme, rest)
    userinfo, _, places = parts.netloc.rpartition("@")
    options = _options(kind, scheme, userinfo, parts)
    service, path_database = _path(kind, scheme, parts.path)
    database = options.get("db", path_database)
    if database < 0 or (kind == "cluster" and database):
        raise _wrong("db: a Cluster has database 0 alone" if kind == "cluster" else "db: expected a number from 0 up")
    if scheme == "unix":
        endpoints = _unix(places, options)
    else:
        endpoints = _endpoints(places, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT)
    if kind == "standalone" and len(endpoints) > 1:
        raise _wrong("several servers: write redis+sentinel://h1:p1,h2:p2/service/db or redis+cluster://h1:p1,h2:p2")
    return Target(
        kind,
        endpoints,
        service,
        Credentials(options.get("username", ""), options.get("password", "")),
        Credentials(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        database,
        _tls(options) if scheme.startswith("rediss") else None,
    )


def _split(scheme: str, rest: str) -> SplitResult:
    """Split the URL; what a password with characters that need encoding does to it is told as such."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:
        raise _wrong(EXPECTED) from None
    strays = ("@" in parts.path and scheme != "unix") or ("@" in parts.query and "@" not in parts.netloc)
    if "#" in rest or strays or "@" in parts.netloc.rpartition("@")[0]:
        raise _wrong("percent-encode # (%23), / (%2F), ? (%3F) and @ (%40) in the user, the password and options")
    return parts


def _options(kind: Kind, scheme: str, userinfo: str, parts: SplitResult) -> dict[str, Any]:
    """Return the user, the password, the path of a unix socket and the options, as redis-py reads them."""
    simple = "unix" if scheme == "unix" else "redis"
    place = parts.path if scheme == "unix" else "host"
    try:
        at = "@" if userinfo else ""
        options: dict[str, Any] = parse_url(f"{simple}://{userinfo}{at}{place}?{parts.query}")  # type: ignore[no-untyped-call]
    except ValueError:
        raise _wrong("expected db=N, a number from 0 up, and ssl_check_hostname=true or false") from None
    allowed = ["db"]
    if scheme.startswith("rediss"):
        allowed += _TLS_OPTIONS
    if kind == "sentinel":
        allowed += _SENTINEL_OPTIONS
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed or not value:
            raise _wrong(_refused(name, allowed))
    return options


def _refused(name: str, allowed: list[str]) -> str:
    if name in _TLS_OPTIONS:
        return f"{name} needs TLS: write rediss:// (or rediss+sentinel://, rediss+cluster://)"
    if name in _SENTINEL_OPTIONS:
        return f"{name} is for redis+sentinel:// alone"
    shown = f"{name!r} is no option, or has no value: " if _OPTION_NAME.fullmatch(name) else ""
    return f"{shown}behind the ? may stand {', '.join(f'{option}=…' for option in allowed)}"


def _path(kind: Kind, scheme: str, path: str) -> tuple[str, int]:
    """Return what stands behind the hosts: the service's name (Sentinel), and the database."""
    if scheme == "unix":
        return "", 0
    pieces = path.removeprefix("/").removesuffix("/").split("/")
    service = ""
    if kind == "sentinel":
        service = pieces.pop(0)
        if not service:
            raise _wrong("name the service the Sentinels watch: redis+sentinel://h1:p1,h2:p2/service/db")
    database = "/".join(pieces)
    if not re.fullmatch("[0-9]{0,9}", database):
        behind = "the service" if kind == "sentinel" else "host and port"
        raise _wrong(f"behind {behind} stands nothing but the number of the database, such as /0")
    return service, int(database or 0)


def _unix(places: str, options: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    path = options.get("path", "/")
    if places or path == "/":
        raise _wrong("name the socket by its absolute path: unix:///run/redis/redis.sock?db=0")
    return (Endpoint(path=path),)


def _endpoints(places: str, default_port: int) -> tuple[Endpoint, ...]:
    found = []
    for number, place in enumerate(places.split(","), 1):
        match = _HOST_AND_PORT.fullmatch(place.strip())
        port = int(match[2] or default_port) if match else 0
        if match is None or not 0 < port < 65536:
            raise _wrong(
                f"server {number}: expected host:port, such as 127.0.0.1:{default_port} or [::1]:{default_port}"
            )
        found.append(Endpoint(match[1].strip("[]"), port))
    return tuple(dict.fromkeys(found))


def _tls(options: Mapping[str, Any]) -> TlsOptions:
    certificate, key = options.get("ssl_certfile", ""), options.get("ssl_keyfile", "")
    if key and not certificate:
        raise _wrong("ssl_keyfile needs ssl_certfile, the certificate that it is the key of")
    check_hostname = options.get("ssl_check_hostname")
    return TlsOptions(options.get("ssl_ca_certs", ""), certificate, key, check_hostname is not False)


def _wrong(expected: str) -> ValueError:
    return ValueError(f"broker.url: {expected}")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
