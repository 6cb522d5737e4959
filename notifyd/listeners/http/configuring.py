"""`/v1/config`: the settings in force, and changing them on every node.

Source: spec/http.md, "Configure".
"""

import re
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from notifyd.broker.base import ConfigurationVersion
from notifyd.centre import NotNewest, UnknownVersion
from notifyd.errors import ConfigurationError
from notifyd.listeners.http.answers import Refusal, json_answer
from notifyd.listeners.http.backend import Backend
from notifyd.listeners.http.body import read_json_body
from notifyd.listeners.http.guard import AccessRules, presented_key
from notifyd.listeners.http.parameters import NoQuery, VersionsQuery, bad_request, read_query
from notifyd.settings.overlay import NeedsRestart, live_keys
from notifyd.settings.written import written

PATCH_BYTES = 256 * 1024
"""A thousand topic policies; a configuration is read by people."""

MAX_AUTHOR_CHARACTERS = 128

_VERSION = re.compile(r'"?([0-9]{1,15})"?', re.ASCII)


class ConfigurationAnswer(Struct, frozen=True):
    """The settings in force on this node.

    `version` is the centre's version that they come from (0: none), `newest` the newest there is; where this node could
    not take it over, `problem` says why. `overlay` is what the version lays over each node's own configuration,
    `stored` whether a change outlives the node, `live` which keys can be changed.
    """

    version: int
    newest: int
    problem: str | None
    stored: bool
    overlay: dict[str, Any]
    settings: dict[str, Any]
    live: list[str]


class VersionAnswer(Struct, frozen=True, omit_defaults=True):
    """A version of the configuration."""

    version: int
    time: int
    author: str
    overlay: dict[str, Any]
    restores: int | UnsetType = UNSET


class VersionsAnswer(Struct, frozen=True):
    """Versions, the newest first; `more` when the limit left some out."""

    versions: list[VersionAnswer]
    more: bool


class RollbackRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version to go back to; 0 is before the first."""

    version: int


_decode_rollback = msgspec.json.Decoder(RollbackRequest).decode


class Configuring:
    """The endpoints. `access` tells whose key it was."""

    def __init__(self, backend: Backend, access: AccessRules) -> None:
        self._backend = backend
        self._access = access

    async def configuration(self, request: Request) -> Response:
        """Answer `GET /v1/config` and `PATCH /v1/config`."""
        read_query(request, NoQuery)
        if request.method == "PATCH":
            expected, author = _read_expected(request), self._author_of(request)
            patch = _read_json(await read_json_body(request, PATCH_BYTES))
            await _explained(self._backend.centre.change(patch, author=author, expected=expected))
        return self._answer()

    async def rollback(self, request: Request) -> Response:
        """Answer `POST /v1/config/rollback`."""
        read_query(request, NoQuery)
        expected, author = _read_expected(request), self._author_of(request)
        version = _read_rollback(await read_json_body(request, PATCH_BYTES))
        await _explained(self._backend.centre.restore(version, author=author, expected=expected))
        return self._answer()

    async def history(self, request: Request) -> Response:
        """Answer `GET /v1/config/history`."""
        limit = read_query(request, VersionsQuery).limit
        found = await self._backend.centre.history(limit + 1)
        return json_answer(VersionsAnswer([_version(one) for one in found[:limit]], len(found) > limit))

    def _answer(self) -> Response:
        centre = self._backend.centre
        answer = ConfigurationAnswer(
            version=centre.applied.version,
            newest=centre.newest.version,
            problem=centre.problem,
            stored=centre.is_stored,
            overlay=centre.applied.overlay,
            settings=written(self._backend.settings),
            live=live_keys(),
        )
        return json_answer(answer, headers={"etag": f'"{answer.version}"'})

    def _author_of(self, request: Request) -> str:
        """Say who asks: in their own words where they give them, and by which key, which they cannot choose."""
        place = self._access.api_keys.place_of(presented_key(request.headers))
        caller = "local" if place is None else f"api key {place}"
        author = _read_author(request)
        return f"{author} ({caller})" if author else caller


async def _explained(change: Awaitable[None]) -> None:
    """Wait for a change; what the centre refuses becomes an answer."""
    try:
        await change
    except NeedsRestart as error:
        raise Refusal(HTTPStatus.CONFLICT, f"{error.key}: {error.reason}", reason="needs_restart") from None
    except ConfigurationError as error:
        raise bad_request(str(error)) from None
    except NotNewest as error:
        raise Refusal(HTTPStatus.PRECONDITION_FAILED, str(error)) from None
    except UnknownVersion as error:
        raise Refusal(HTTPStatus.NOT_FOUND, str(error), reason="unknown_version") from None


def _read_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as failure:
        raise bad_request(f"not a merge patch: {failure}") from None


def _read_rollback(body: bytes) -> int:
    try:
        return _decode_rollback(body).version
    except (ValueError, RecursionError) as failure:
        raise bad_request(f'not {{"version": n}}: {failure}') from None


def _read_expected(request: Request) -> int | None:
    """Read `If-Match`: a version, bare or as the ETag it was answered with. Raises RequestError 400."""
    text = request.headers.get("if-match", "*").strip()
    if text == "*":
        return None
    if (found := _VERSION.fullmatch(text)) is None:
        raise bad_request(f'If-Match is a version such as 7 or "7", not {text[:64]!r}')
    return int(found[1])


def _read_author(request: Request) -> str:
    """Read `X-Author`, which is UTF-8; "" where there is none. Raises RequestError 400."""
    try:
        author = " ".join(request.headers.get("x-author", "").encode("latin-1").decode().split())
    except UnicodeDecodeError:
        author = "\0"
    if len(author) > MAX_AUTHOR_CHARACTERS or not author.isprintable():
        raise bad_request(f"X-Author is a name of at most {MAX_AUTHOR_CHARACTERS} printable characters, as UTF-8")
    return author


def _version(one: ConfigurationVersion) -> VersionAnswer:
    restores = UNSET if one.restores is None else one.restores
    return VersionAnswer(one.version, one.time, one.author, one.overlay, restores)
