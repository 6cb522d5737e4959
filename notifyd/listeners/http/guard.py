"""Who may ask: API keys, and where none are needed, no stranger's web page.

Without API keys the listener serves its own machine only, but a browser on that machine also runs other sites' pages.
Two things keep these out: the `Host` must name this machine (a page of `evil.example` that had its name point to
127.0.0.1 still says `evil.example`), and a browser's request must come from our own page. A third thing keeps out
strangers whom a proxy on this machine would bring in: what shows signs of having been forwarded is refused.

Source: spec/http.md, "Access"; https://www.w3.org/TR/fetch-metadata/.
"""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from notifyd.auth.api_keys import ApiKeys
from notifyd.listeners.http.answers import Refusal
from notifyd.policy.forwarding import is_local
from notifyd.settings import Address, Network

PROBES = frozenset({"/health", "/ready"})
"""Asked by machines that hold no key and call this one by any name."""

PAGE = frozenset({"/", "/page.js", "/page.css", "/page.json", "/notifyd.js"})
"""Shown to everybody: the page holds nothing but itself, and asks for what it needs."""


@dataclass(slots=True)
class AccessRules:
    """Who may ask. The keys may be replaced while the listener serves; without any only a `loopback` one answers.

    `trusted_proxies` are those whose word about their client is believed.
    """

    api_keys: ApiKeys
    loopback: bool
    trusted_proxies: tuple[Network, ...] = ()


class Guard:
    """ASGI middleware that lets a request pass or raises Refusal."""

    def __init__(self, app: ASGIApp, *, access: AccessRules) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one request."""
        if scope["path"] not in PROBES:
            self._check(scope["path"], Headers(scope=scope), scope["client"][0])
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Headers, peer: str) -> None:
        if self._access.loopback and not self._access.api_keys:
            _check_host(headers)
            if path not in PAGE:
                self._check_client(headers, peer)
                _check_site(headers)
        elif path not in PAGE:
            self._check_key(headers)

    def _check_client(self, headers: Headers, peer: str) -> None:
        """Raise Refusal 403 for what a proxy passes on, unless a trusted one says that its client is on this machine.

        A proxy on this machine would let strangers in: what it asks for comes from loopback, and its `Host` is often
        made to fit.
        """
        forwarded_for = headers.getlist("x-forwarded-for")
        if not is_local(peer, headers.keys(), forwarded_for, self._access.trusted_proxies):
            message = "this listener serves its own machine only, and a proxy passed this on; set api_keys in [auth]"
            raise Refusal(HTTPStatus.FORBIDDEN, message, reason="forwarded")

    def _check_key(self, headers: Headers) -> None:
        """Raise Refusal 401 without a configured key: the same answer whatever was wrong with the one presented."""
        if not self._access.api_keys:
            raise _unauthorized("no API key is configured; set api_keys in [auth] or listen on a loopback address")
        if not self._access.api_keys.holds(presented_key(headers)):
            raise _unauthorized("an API key is needed: Authorization: Bearer KEY")


def presented_key(headers: Headers) -> str | None:
    """Take the key out of the one `Authorization: Bearer` header."""
    presented = headers.getlist("authorization")
    scheme, _, key = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
    return key.strip() if scheme.lower() == "bearer" else None


def host_name(host: str) -> str:
    """Take the name out of a `Host` header, without port and brackets; "" where it is none."""
    before, _, port = host.lower().rpartition(":")
    name = before if port.isdecimal() else host.lower()
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return "" if ":" in name else name


def _check_host(headers: Headers) -> None:
    host = headers.get("host", "")
    if not Address(host_name(host), 0).is_loopback:
        message = f"this listener serves its own machine only; Host {host[:64]!r} is not a name of it"
        raise Refusal(HTTPStatus.FORBIDDEN, message, reason="foreign_host")


def _check_site(headers: Headers) -> None:
    """Raise Refusal 403 for a request that a browser makes for another site's page."""
    origin, host = headers.get("origin"), headers.get("host", "")
    is_foreign = origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
    if is_foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refusal(HTTPStatus.FORBIDDEN, "a browser may ask only from this listener's own page", reason="cross_site")


def _unauthorized(message: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, message, headers={"www-authenticate": 'Bearer realm="notifyd"'})
