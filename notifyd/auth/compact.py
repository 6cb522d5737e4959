"""A token's outside: three canonical base64url parts, and JSON that every reader understands alike.

What this file lets through means one thing only: no padding, no unused bits, no duplicate members, no numbers that
are not numbers, no half characters. It believes nothing; the signature is not looked at here.

Source: RFC 7515 sections 3 to 5 and 7.1; RFC 8725 sections 2 and 3.
"""

import base64
import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from notifyd.errors import Unauthorized
from protocol.data import check_data
from protocol.errors import RequestError

MAX_TOKEN_CHARACTERS = 16 * 1024
"""As much as a whole request head may have. A longer token is refused unread."""

MAX_KID_CHARACTERS = 128

HEADERS_KEPT = 64
"""Different headers remembered: signers and their keys are few, and a stranger's take no more than a megabyte."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_REFUSED_MEMBERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""Header members that bring a key, point to one, or change what the token means: none is ever followed."""

_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


class CompactToken(NamedTuple):
    """A token taken apart; nothing of it is verified yet."""

    algorithm: str
    kid: str | None
    signed: bytes
    payload: bytes
    signature: bytes


def read_token(token: str) -> CompactToken:
    """Take a token apart. Raises Unauthorized unless it is written in the one way a signer writes it."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Unauthorized("the token is too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise Unauthorized("the token is not three parts of base64url")
    algorithm, kid = _read_header(parts[1])
    return CompactToken(algorithm, kid, token[: parts.end(2)].encode(), _decode(parts[2]), _decode(parts[3]))


@lru_cache(maxsize=HEADERS_KEPT)
def _read_header(part: str) -> tuple[str, str | None]:
    """Return a header's algorithm and kid. Whoever signs writes the same one each time, so it is read once."""
    header = read_object(_decode(part), "header")
    if _REFUSED_MEMBERS & header.keys():
        raise Unauthorized("the header has a member that is never accepted")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise Unauthorized("the header names no algorithm")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARACTERS):
        raise Unauthorized("the kid is not a short text")
    if "typ" in header and str(header["typ"]).lower() not in _TYPES:
        raise Unauthorized("the token is of another type")
    return algorithm, kid


def _decode(part: str) -> bytes:
    """Decode base64url without padding; text that its own bytes would not be written as is refused."""
    try:
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        raise Unauthorized("a part of the token is not base64url") from None
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode():
        raise Unauthorized("a part of the token is not canonical base64url")
    return content


def read_object(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object in which no name stands twice, at any depth. Raises Unauthorized naming `what`."""
    try:
        msgspec.json.decode(content)  # Refuses NaN, numbers out of range, half surrogates and bytes that are not UTF-8.
        document = _decode_strictly(content.decode())
        check_data(document)  # Bounds the nesting; how deep a decoder goes by itself depends on the Python.
    except (msgspec.DecodeError, ValueError, RecursionError, RequestError):
        raise Unauthorized(f"the {what} is not strict JSON") from None
    if not isinstance(document, dict):
        raise Unauthorized(f"the {what} is not an object")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


_decode_strictly = json.JSONDecoder(object_pairs_hook=_without_duplicates).decode
