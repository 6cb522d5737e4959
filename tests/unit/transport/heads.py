"""Builds upgrade requests, and tells what the reader makes of one in any cutting."""

from collections.abc import Sequence

from notifyd.transport.request_head import HeadError, HeadReader

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD_HEADERS = (
    "Host: notify.example.com:7500",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)


def head(*more: str, line: str = "GET /ws HTTP/1.1", without: str = "", good: Sequence[str] = GOOD_HEADERS) -> bytes:
    """A good head, with `more` headers, without those whose name starts with `without`."""
    kept = [header for header in good if not (without and header.lower().startswith(without.lower()))]
    return "\r\n".join([line, *kept, *more, "", ""]).encode("latin-1")


Outcome = tuple[str, object, bytes]


def outcome_in_cuts(data: bytes, cuts: Sequence[int]) -> Outcome:
    """What the reader makes of `data` cut at `cuts`: the head and everything behind it, the error, or nothing yet."""
    reader, start = HeadReader(), 0
    for cut in [*cuts, len(data)]:
        try:
            found = reader.receive(data[start:cut])
        except HeadError as error:
            return ("refused", (error.status, error.reason, error.message), b"")
        start = cut
        if found is not None:
            parts = (found.target, found.query, found.headers, found.subprotocols, found.key)
            return ("accepted", parts, found.trailing + data[cut:])
    return ("waiting", None, b"")
