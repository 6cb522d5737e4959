"""The kinds of values a setting can have: durations, sizes, addresses, networks, secrets.

Each parser raises ValueError that says, to a person, what was expected. None of them ever shows a secret.
"""

import base64
import ipaddress
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from protocol.topics import Pattern

MAX_DURATION_S = 100 * 365 * 86400.0
"""A hundred years: longer than anything can be meant to last, short enough for every clock's arithmetic."""

MAX_SIZE_BYTES = 2**50

WITHHELD = "(withheld)"
"""Stands for a secret wherever something is shown."""

_UNIT_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_UNIT_BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION = re.compile(r"(?:[0-9]{1,13}(?:\.[0-9]{1,6})?(?:ms|d|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ms|d|h|m|s)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,16})(B|KiB|MiB|GiB)?", re.ASCII)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._-]+)?\]|[^\s:\[\]/@]+):([0-9]{1,5})", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[0-9A-Za-z_-]{1,63}(?<!-)(?:\.(?!-)[0-9A-Za-z_-]{1,63}(?<!-))*\.?", re.ASCII)


def parse_duration(text: str) -> float:
    """Read `"30s"`, `"5m"`, `"1h30m"`, `"500ms"` or `"1d"` as seconds."""
    if _DURATION.fullmatch(text):
        duration_s = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        if duration_s <= MAX_DURATION_S:
            return duration_s
    raise ValueError(f'expected a duration such as "30s", "5m" or "500ms", got {shown(text)}')


def format_duration(duration_s: float) -> str:
    """Write seconds as the shortest text that `parse_duration` reads back, exact to the millisecond."""
    rest_ms = round(duration_s * 1000)
    for unit, unit_ms in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000)):
        if rest_ms % unit_ms == 0:
            return f"{rest_ms // unit_ms}{unit}" if rest_ms else "0s"
    return f"{rest_ms}ms"


def parse_size(value: str | int) -> int:
    """Read `"64KiB"`, `"1MiB"`, `"2GiB"`, `"100B"` or a whole number as bytes."""
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        value = int(found[1]) * _UNIT_BYTES[found[2] or ""]
    if type(value) is int and 0 <= value <= MAX_SIZE_BYTES:
        return value
    raise ValueError(f'expected a size such as "64KiB", got {shown(value)}')


def format_size(size_bytes: int) -> str:
    """Write bytes as the shortest text that `parse_size` reads back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _UNIT_BYTES[unit] == 0:
            return f"{size_bytes // _UNIT_BYTES[unit]}{unit}"
    return f"{size_bytes}B"


class Address:
    """Where to listen: a host (name or IP address, without brackets) and a port; 0 lets the system choose one."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `"127.0.0.1:7500"`, `"localhost:7500"` or `"[::1]:0"`."""
        found = _ADDRESS.fullmatch(text)
        if found and int(found[2]) < 65536 and _is_host(found[1]):
            return cls(found[1].strip("[]"), int(found[2]))
        raise ValueError(
            f'expected an address such as "127.0.0.1:7500" or "[::1]:7500" ("0.0.0.0:7500" for every interface, '
            f'"" for off), got {shown(text)}'
        )

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (other.host, other.port) == (self.host, self.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))


def _is_host(text: str) -> bool:
    digits_only = text.replace(".", "").isdigit()
    if not (text.startswith("[") or digits_only):
        return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None
    try:
        return ipaddress.ip_address(text.strip("[]")).version == (6 if text.startswith("[") else 4)
    except ValueError:
        return False


class Network:
    """A range of IP addresses, or one alone."""

    __slots__ = ("_range",)

    def __init__(self, text: str) -> None:
        """Read `"10.0.0.0/8"`, `"2001:db8::/32"` or `"10.0.0.1"`. Raises ValueError."""
        try:
            self._range = ipaddress.ip_network(text)
        except ValueError as problem:
            reason = f" ({problem})" if "host bits" in str(problem) else ""
            raise ValueError(
                f'expected a network such as "10.0.0.0/8" or an address such as "10.0.0.1", got {shown(text)}{reason}'
            ) from None

    @property
    def is_everything(self) -> bool:
        """Whether every address of its version lies in it."""
        return self._range.prefixlen == 0

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return address in self._range

    def __str__(self) -> str:
        return str(self._range)

    def __repr__(self) -> str:
        return f"Network({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and other._range == self._range

    def __hash__(self) -> int:
        return hash(self._range)


class Secret:
    """A text that is never shown: not by str, repr or format. `reveal` gives it to the one place that needs it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself. Never hand the result to a log line or an error."""
        return self._text

    def key_bytes(self) -> bytes:
        """Return the HMAC key it stands for: its UTF-8, or what follows `base64:`. Raises ValueError without one."""
        if not self._text.startswith("base64:"):
            return self._text.encode()
        try:
            content = base64.b64decode(self._text.removeprefix("base64:"), validate=True)
        except ValueError:
            raise ValueError('begins with "base64:", but what follows is not base64') from None
        if not content:
            raise ValueError('begins with "base64:", but nothing follows')
        return content

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Url:
    """A URL that may carry passwords: str and repr leave out what stands between `//` and `@`, and the query."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def scheme(self) -> str:
        """The part before `://`, in lower case; "" where there is none."""
        scheme, separator, _ = self._text.partition("://")
        return scheme.lower() if separator else ""

    @property
    def host(self) -> str | None:
        """The host of an HTTP URL, where it names one; None also where it cannot be read."""
        return self._place[0]

    @property
    def port(self) -> int | None:
        """The port of an HTTP URL, likewise."""
        return self._place[1]

    @property
    def _place(self) -> tuple[str | None, int | None]:
        try:
            parts = urlsplit(self._text)
            return parts.hostname, parts.port
        except ValueError:
            return None, None

    def reveal(self) -> str:
        """Return the whole URL, credentials included. Never hand the result to a log line or an error."""
        return self._text

    def __str__(self) -> str:
        credentials, at, place = self._text.partition("?")[0].rpartition("@")
        scheme = credentials.partition("://")[0] + "://" if "://" in credentials else ""
        return f"{scheme}hidden@{place}" if at else place

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


if TYPE_CHECKING:
    Seconds: TypeAlias = float
    Bytes: TypeAlias = int
else:

    class _Plain(type):
        """Makes msgspec ask `convert_value` for the type, and take the plain number that it answers with."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, cls.plain)

    class Seconds(metaclass=_Plain):
        """A duration: text in the file, a float of seconds in the code."""

        plain = float

    class Bytes(metaclass=_Plain):
        """A size: text or a whole number in the file, an int of bytes in the code."""

        plain = int


_TEXT_PARSERS: dict[Any, Any] = {
    Seconds: parse_duration,
    Address: Address.parse,
    Network: Network,
    Pattern: Pattern,
    Path: Path,
    Url: Url,
    Secret: Secret,
}
_EXPECTED = {
    Seconds: 'a duration such as "30s", "5m" or "500ms"',
    Address: 'an address such as "127.0.0.1:7500"',
    Network: 'a network such as "10.0.0.0/8"',
    Pattern: 'a topic pattern such as "orders:*"',
    Path: "the path of a file",
    Url: 'a URL such as "memory://"',
    Secret: 'text, or { file = "path" }',
}


def convert_value(kind: type, value: Any) -> Any:
    """Read a setting of one of the types above: the `dec_hook` of msgspec. Raises ValueError."""
    if kind is Bytes:
        return parse_size(value)
    if not isinstance(value, str):
        got = "" if kind in HIDDEN else f", got {shown(value)}"
        raise ValueError(f"expected {_EXPECTED[kind]}{got}")
    if not value:
        raise ValueError(f"expected {_EXPECTED[kind]}, got an empty text")
    return _TEXT_PARSERS[kind](value)


HIDDEN = frozenset({Secret, Url})
"""The types whose values no error may show."""

TEXTUAL = frozenset(_TEXT_PARSERS)
"""The types that are text in a configuration file."""


def shown(value: Any) -> str:
    """Write a value down as it stood in the file, shortened, for an error."""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 80 else value[:77] + "...", ensure_ascii=False)
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "a table"
    return "a date or time"
