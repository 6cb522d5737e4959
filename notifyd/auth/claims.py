"""A verified token's inside: its claims, judged and made into an Identity.

Source: RFC 7519 section 4.1; the README's list of claims.
"""

import unicodedata
from typing import Any

from notifyd.errors import Unauthorized
from notifyd.model import OPERATOR, Identity
from notifyd.settings.types import AuthSettings
from protocol.topics import Pattern, check_topic

MAX_SUBJECT_BYTES = 255
MAX_TIME_S = 2**53
"""NumericDates above it are nobody's plan, and not every JSON reader could carry them."""

CLOCK_SKEW_S = 60.0
"""How far ahead of this node's clock a token may have been issued: signers' clocks are not this node's."""


def read_claims(claims: dict[str, Any], auth: AuthSettings, now_s: float) -> Identity:
    """Judge the claims of a token whose signature holds, at the Unix time `now_s`. Raises Unauthorized."""
    expires_s, issued_s = _check_times(claims, auth.leeway_s, now_s)
    _check_issuer(claims, auth.issuer)
    _check_audience(claims, auth.audience)
    return Identity(
        user=_read_subject(claims),
        subscribe=tuple(map(_read_pattern, _read_texts(claims, "subscribe"))),
        publish=tuple(map(_read_pattern, _read_texts(claims, "publish"))),
        topics=tuple(map(_read_topic, _read_texts(claims, "topics"))),
        expires_s=expires_s,
        token_id=_read_text(claims, "jti"),
        issued_s=issued_s,
    )


def _check_times(claims: dict[str, Any], leeway_s: float, now_s: float) -> tuple[float | None, float | None]:
    """Check exp, nbf and iat; return when the token stops being accepted, leeway included, and when it was issued."""
    expires_s, begins_s, issued_s = (_read_time(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_s is not None and now_s >= expires_s + leeway_s:
        raise Unauthorized("the token has expired", "expired")
    if begins_s is not None and now_s + leeway_s < begins_s:
        raise Unauthorized("the token is not valid yet", "not_yet_valid")
    if issued_s is not None and now_s + leeway_s + CLOCK_SKEW_S < issued_s:
        raise Unauthorized("the token was issued in the future", "not_yet_valid")
    return (None if expires_s is None else expires_s + leeway_s), issued_s


def _read_time(claims: dict[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int or not 0 <= value <= MAX_TIME_S:
        raise Unauthorized(f"{name} is not a whole number of seconds")
    return value


def _check_issuer(claims: dict[str, Any], issuer: str | None) -> None:
    claimed = _read_text(claims, "iss")
    if issuer is not None and claimed != issuer:
        raise Unauthorized("the token is from another issuer", "issuer")


def _check_audience(claims: dict[str, Any], audience: str | None) -> None:
    claimed = claims.get("aud", [])
    if isinstance(claimed, str):
        claimed = [claimed]
    if not isinstance(claimed, list) or not all(isinstance(name, str) for name in claimed):
        raise Unauthorized("aud is neither text nor a list of texts")
    if audience is not None and audience not in claimed:
        raise Unauthorized("the token is for another audience", "audience")


def _read_subject(claims: dict[str, Any]) -> str:
    subject = _read_text(claims, "sub")
    if not subject or len(subject.encode()) > MAX_SUBJECT_BYTES:
        raise Unauthorized(f"sub is missing, empty or longer than {MAX_SUBJECT_BYTES} bytes")
    if any(unicodedata.category(character) == "Cc" for character in subject):
        raise Unauthorized("sub has control characters")
    if subject == OPERATOR:  # what comes from an operator is believed, and his sessions are his own
        raise Unauthorized(f"sub is {OPERATOR!r}: that is who shows an API key")
    return subject


def _read_text(claims: dict[str, Any], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str):
        raise Unauthorized(f"{name} is not text")
    return value


def _read_texts(claims: dict[str, Any], name: str) -> list[str]:
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Unauthorized(f"{name} is not a list of texts")
    return value


def _read_pattern(text: str) -> Pattern:
    try:
        return Pattern(text)
    except ValueError:
        raise Unauthorized("a permission is not a topic pattern") from None


def _read_topic(text: str) -> str:
    try:
        return check_topic(text)
    except ValueError:
        raise Unauthorized("topics holds what is no topic") from None
