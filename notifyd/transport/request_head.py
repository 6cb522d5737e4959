"""Reads and judges the head of a WebSocket upgrade request, before trio-websocket sees a byte of it. No I/O.

wsproto decodes headers as ASCII or IDNA outside every error barrier, so one byte in one header of one stranger's
request ends a stock server. Here a head is judged as a whole, and answered: wsproto sees the frames behind it only.

The verdict depends on the bytes of the stream alone, never on how they were cut into segments. Bytes that follow the
head in the same segment are kept (`RequestHead.trailing`): to refuse them would make the answer depend on the cutting.

Source: RFC 9112 (HTTP/1.1), RFC 6455 section 4.2.1 (the opening handshake), spec/wire.md "WebSocket".
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

import msgspec
from wsproto.utilities import generate_accept_token

HEAD_BYTES = 16 * 1024
"""The longest head read, its blank line included: room for a long token and a browser's cookies."""

MAX_HEADERS = 100
MAX_QUERY_FIELDS = 32
"""Each field costs a dictionary entry before anybody is authenticated; two are defined."""

MAX_SUBPROTOCOLS = 32
MAX_HOST_BYTES = 253 + len(".:65535")

Headers = tuple[tuple[str, str], ...]

UPGRADE_HEADERS: Headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
"""What an answer 426 must say: which protocol to upgrade to, in which version."""

_END = b"\r\n\r\n"
_BAD_BYTES = re.compile(rb"[^\t\r\n\x20-\x7e]|(?<!\r)\n|\r[^\n]")
_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_IS_TOKEN = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9]\.[0-9])")
_HEADER_LINE = re.compile(rf"({_TOKEN}):(.*)")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([-._0-9A-Za-z]+))(?::([0-9]{1,5}))?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


class HeadError(Exception):
    """The head is refused. `status` is HTTP's, `reason` is stable and machine-readable, `message` is for people."""

    def __init__(self, status: int, reason: str, message: str, extra_headers: Headers = ()) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.extra_headers = extra_headers

    def response(self) -> bytes:
        """Return the whole HTTP answer that this refusal is."""
        return response(self.status, self.reason, self.message, self.extra_headers)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """An upgrade request that was found good. Needed until the upgrade is answered; do not keep it longer.

    `target` is the request line's, `path` and `query` are its percent-decoded parts (`+` stays `+`), `host` is the
    Host header as sent, `headers` holds every value by lower-case name in order of arrival. `subprotocols` are in the
    client's order of preference, without duplicates. `key` is what the answer proves to have read. `trailing` are the
    bytes received behind the head: the WebSocket stream's first.
    """

    method: str
    target: str
    path: str
    query: dict[str, list[str]]
    host: str
    headers: dict[str, list[str]]
    subprotocols: tuple[str, ...]
    key: str
    trailing: bytes

    @property
    def origins(self) -> list[str]:
        """Every Origin header's value: none for most programs, one for a browser."""
        return self.headers.get("origin", [])

    @property
    def authorization(self) -> list[str]:
        """Every Authorization header's value."""
        return self.headers.get("authorization", [])


class HeadReader:
    """Collects one request head, however it is cut, in at most `limit_bytes` and one segment; then it is used up."""

    __slots__ = ("_buffer", "_limit_bytes", "_max_headers", "_searched")

    def __init__(self, limit_bytes: int = HEAD_BYTES, max_headers: int = MAX_HEADERS) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._limit_bytes = limit_bytes
        self._max_headers = max_headers

    def receive(self, data: bytes) -> RequestHead | None:
        """Take the next segment; return the head once it is complete, None before.

        Raises HeadError, and nothing else, for a head that is refused: at its first forbidden byte, at the byte that
        makes it too long, or at its end.
        """
        self._buffer += data
        end = self._buffer.find(_END, max(0, self._searched - len(_END)), self._limit_bytes)
        stop = end + len(_END) if end >= 0 else min(len(self._buffer), self._limit_bytes)
        if _BAD_BYTES.search(self._buffer, max(0, self._searched - 1), stop):
            raise _bad("the head may hold printable ASCII, spaces and tabs only, in lines that end in CR LF")
        self._searched = stop
        if end >= 0:
            return self._judge(self._buffer[:end].decode("ascii"), bytes(self._buffer[stop:]))
        if len(self._buffer) > self._limit_bytes:
            raise _too_large(f"the head is longer than {self._limit_bytes} bytes")
        return None

    def _judge(self, head: str, trailing: bytes) -> RequestHead:
        request_line, *lines = head.split("\r\n")
        match = _REQUEST_LINE.fullmatch(request_line)
        if match is None:
            raise _bad("the request line is not of the form: GET /path HTTP/1.1")
        if len(lines) > self._max_headers:
            raise _too_large(f"more than {self._max_headers} headers")
        method, target, version = match.groups()
        headers = _read_headers(lines)
        _check_request_line(method, target, version)
        host = _read_host(headers)
        _check_no_body(headers)
        key = _read_upgrade(headers)
        path, query = _read_target(target)
        subprotocols = _read_subprotocols(headers)
        return RequestHead(method, target, path, query, host, headers, subprotocols, key, trailing)


def upgrade(key: str, subprotocol: str | None) -> bytes:
    """Build the answer that opens the WebSocket, without extensions. Source: RFC 6455 section 4.2.2."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {generate_accept_token(key.encode()).decode()}")
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def response(status: int, reason: str, message: str, extra_headers: Headers = ()) -> bytes:
    """Build a whole HTTP/1.1 answer, the last on its connection, with the body `{"error":{"code","reason","message"}}`.

    `status` is one HTTP defines; `extra_headers` are ours, never a stranger's words.
    """
    body = msgspec.json.encode({"error": {"code": status, "reason": reason, "message": message}}) + b"\n"
    lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in extra_headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _bad(message: str) -> HeadError:
    return HeadError(400, "bad_request", message)


def _too_large(message: str) -> HeadError:
    return HeadError(431, "head_too_large", message)


def _upgrade_required(message: str) -> HeadError:
    return HeadError(426, "upgrade_required", message, UPGRADE_HEADERS)


def _read_headers(lines: list[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith((" ", "\t")):
            raise _bad("a header may not be folded over several lines")
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise _bad("a header line is not of the form: Name: value")
        headers.setdefault(match[1].lower(), []).append(match[2].strip(" \t"))
    return headers


def _check_request_line(method: str, target: str, version: str) -> None:
    if version != "1.1":
        raise _bad("the version must be HTTP/1.1")
    if method != "GET":
        raise HeadError(405, "method_not_allowed", "a WebSocket is opened with GET", (("Allow", "GET"),))
    if not target.startswith("/") or "#" in target:
        raise _bad("the request target must be a path and perhaps a query")


def _read_host(headers: dict[str, list[str]]) -> str:
    values = headers.get("host", [])
    if len(values) != 1:
        raise _bad(f"exactly one Host header is needed, not {len(values)}")
    if not _is_host(values[0]):
        raise _bad("the Host header is not a host name or address with an optional port")
    return values[0]


def _is_host(value: str) -> bool:
    match = _HOST.fullmatch(value) if len(value) <= MAX_HOST_BYTES else None
    if match is None or int(match[3] or 0) > 65535:
        return False
    try:
        value.encode("ascii").decode("idna")  # as wsproto will, where nobody catches it
        if match[1] is not None:
            IPv6Address(match[1])
            return True
    except ValueError:
        return False
    return all(0 < len(label) < 64 for label in match[2].removesuffix(".").split("."))


def _check_no_body(headers: dict[str, list[str]]) -> None:
    for name in ("content-length", "transfer-encoding", "expect"):
        if name in headers:
            raise _bad(f"an upgrade request has no body, so it may not have the header {name.title()}")


def _read_upgrade(headers: dict[str, list[str]]) -> str:
    """Check the handshake's own headers; return the key."""
    if [value.lower() for value in headers.get("upgrade", [])] != ["websocket"]:
        raise _upgrade_required("this is a WebSocket endpoint: send the header Upgrade: websocket")
    options = [option.strip(" \t").lower() for value in headers.get("connection", []) for option in value.split(",")]
    if "upgrade" not in options:
        raise _upgrade_required("this is a WebSocket endpoint: send the header Connection: Upgrade")
    if headers.get("sec-websocket-version") != ["13"]:
        raise _upgrade_required("exactly one header Sec-WebSocket-Version: 13 is needed")
    keys = headers.get("sec-websocket-key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise _bad("exactly one Sec-WebSocket-Key header is needed: 16 random bytes in base64, 24 characters")
    return keys[0]


def _read_target(target: str) -> tuple[str, dict[str, list[str]]]:
    path, _, query_text = target.partition("?")
    fields = [field for field in query_text.split("&") if field]
    if len(fields) > MAX_QUERY_FIELDS:
        raise _bad(f"the query has more than {MAX_QUERY_FIELDS} fields")
    query: dict[str, list[str]] = {}
    for field in fields:
        name, _, value = field.partition("=")
        query.setdefault(_percent_decode(name), []).append(_percent_decode(value))
    return _percent_decode(path), query


def _percent_decode(text: str) -> str:
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise _bad("the request target has a % that two hexadecimal digits do not follow")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("the request target is not percent-encoded UTF-8") from None


def _read_subprotocols(headers: dict[str, list[str]]) -> tuple[str, ...]:
    values = headers.get("sec-websocket-protocol", [])
    names = [name for value in values for part in value.split(",") if (name := part.strip(" \t"))]
    if values and not names:
        raise _bad("the header Sec-WebSocket-Protocol names no subprotocol")
    if len(names) > MAX_SUBPROTOCOLS:
        raise _bad(f"more than {MAX_SUBPROTOCOLS} subprotocols are offered")
    if not all(map(_IS_TOKEN.fullmatch, names)):
        raise _bad("a subprotocol's name is not a token")
    if len(set(names)) != len(names):
        raise _bad("a subprotocol is offered twice")
    return tuple(names)
