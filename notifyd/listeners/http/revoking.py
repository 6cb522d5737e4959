"""`/v1/revocations`: tokens that are refused before they expire.

Source: spec/http.md, "Revoke".
"""

import math
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from notifyd.auth.claims import MAX_SUBJECT_BYTES
from notifyd.auth.revocations import Revocation
from notifyd.clock import Clock
from notifyd.listeners.http.answers import json_answer
from notifyd.listeners.http.backend import Backend
from notifyd.listeners.http.body import read_json_body
from notifyd.listeners.http.parameters import NoQuery, RevocationsQuery, bad_request, read_query
from notifyd.settings.values import parse_duration

BODY_BYTES = 16 * 1024
"""As much as a token may have, and more than any name in it."""

MAX_TOKEN_ID_BYTES = 1024
DEFAULT_TTL_S = 24 * 3600.0
MAX_TTL_S = 30 * 24 * 3600.0
"""Every node remembers every revocation for so long at most. Tokens that live longer are ended by another key."""

TTL_FORMS = """"ttl" is seconds or a duration such as "24h", at least 1 second and at most 30 days"""


class RevocationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What to revoke: one of `user` and `token_id`, and for how long."""

    user: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    token_id: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    ttl: float | str = DEFAULT_TTL_S


class RevocationAnswer(Struct, frozen=True, omit_defaults=True):
    """A revocation in force, until this Unix time in seconds."""

    until: int
    user: str | UnsetType = UNSET
    token_id: str | UnsetType = UNSET


class RevocationsAnswer(Struct, frozen=True):
    """The revocations in force; `more` when the limit left some out."""

    revocations: list[RevocationAnswer]
    more: bool


_decode_request = msgspec.json.Decoder(RevocationRequest).decode


class Revoking:
    """The endpoint. `clock` tells from when to when a revocation holds."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock

    async def revocations(self, request: Request) -> Response:
        """Answer `POST /v1/revocations` and `GET /v1/revocations`."""
        return await (self._revoke if request.method == "POST" else self._list)(request)

    async def _revoke(self, request: Request) -> Response:
        read_query(request, NoQuery)
        revocation = _read_revocation(await read_json_body(request, BODY_BYTES), self._clock.unix_s())
        await self._backend.revoke(revocation)
        return json_answer(_answer(revocation))

    async def _list(self, request: Request) -> Response:
        limit = read_query(request, RevocationsQuery).limit
        found = self._backend.revocations()
        return json_answer(RevocationsAnswer([_answer(one) for one in found[:limit]], len(found) > limit))


def _read_revocation(body: bytes, now_s: float) -> Revocation:
    """Read what to revoke, from now on. Raises RequestError 400."""
    try:
        wanted = _decode_request(body)
    except (ValueError, RecursionError) as failure:
        raise bad_request(f"not a revocation: {failure}") from None
    until_s = now_s + _read_ttl(wanted.ttl)
    if isinstance(wanted.user, str) and wanted.token_id is UNSET:
        _check_size("user", wanted.user, MAX_SUBJECT_BYTES)
        return Revocation(user=wanted.user, before_s=now_s, until_s=until_s)
    if isinstance(wanted.token_id, str) and wanted.user is UNSET:
        _check_size("token_id", wanted.token_id, MAX_TOKEN_ID_BYTES)
        return Revocation(token_id=wanted.token_id, until_s=until_s)
    raise bad_request('not a revocation: give either "user" or "token_id" (the jti of a token)')


def _read_ttl(ttl: float | str) -> float:
    try:
        ttl_s = parse_duration(ttl) if isinstance(ttl, str) else ttl
    except ValueError as failure:
        raise bad_request(f"{TTL_FORMS}: {failure}") from None
    if not 1 <= ttl_s <= MAX_TTL_S:
        raise bad_request(f"{TTL_FORMS}, not {ttl_s:g} seconds")
    return ttl_s


def _check_size(name: str, text: str, most_bytes: int) -> None:
    size = len(text.encode())
    if size > most_bytes:
        raise bad_request(f'not a revocation: "{name}" has {size} bytes; {most_bytes} are allowed')


def _answer(revocation: Revocation) -> RevocationAnswer:
    until = math.ceil(revocation.until_s)
    if revocation.token_id is not None:
        return RevocationAnswer(until, token_id=revocation.token_id)
    return RevocationAnswer(until, user=revocation.user or "")
