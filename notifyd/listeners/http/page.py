"""The console at `/`: a few files of ours and a few facts, under a policy that lets nothing else in.

Source: spec/http.md, "The page"; https://www.w3.org/TR/CSP3/.
"""

import re
from http import HTTPStatus
from urllib.parse import urlsplit

from msgspec import Struct
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from notifyd import __version__
from notifyd.listeners.http.answers import COMMON_HEADERS, json_answer
from notifyd.listeners.http.console_files import CONSOLE_FILES
from notifyd.listeners.http.guard import host_name
from notifyd.settings import Address

_DNS_NAME = re.compile(r"[a-z0-9.-]{1,253}")
_WILDCARD_NAMES = ("", "0.0.0.0", "::")


class PageFacts(Struct, frozen=True):
    """What the page must know: where the WebSocket listener is (None where it is off)."""

    websocket: str | None
    version: str = __version__


class PageFiles:
    """The endpoints of the console. `websocket_url` is the WebSocket listener's, None where it is off."""

    def __init__(self, websocket_url: str | None) -> None:
        self._websocket_url = websocket_url

    async def file(self, request: Request) -> Response:
        """Answer `GET /` and `GET /console/…`."""
        path = request.scope["path"]
        policy = self._policy(request.headers) if path == "/" else "default-src 'none'"
        headers = {**COMMON_HEADERS, "content-security-policy": policy}
        file = CONSOLE_FILES[path]
        return Response(file.body, HTTPStatus.OK, headers, file.media_type)

    async def facts(self, request: Request) -> Response:
        """Answer `GET /page.json`."""
        return json_answer(PageFacts(reachable(self._websocket_url, request.headers.get("host", ""))))

    def _policy(self, headers: Headers) -> str:
        sources = ["'self'"]
        if websocket_url := reachable(self._websocket_url, headers.get("host", "")):
            sources.append(policy_source(websocket_url))
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
            f"connect-src {' '.join(sources)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )


def reachable(websocket_url: str | None, host: str) -> str | None:
    """Say where the browser that sent this `Host` finds the WebSocket listener.

    A listener on every address, or on this machine alone, is reached by the name by which the browser reached us.
    """
    if websocket_url is None:
        return None
    url, name = urlsplit(websocket_url), host_name(host)
    own = url.hostname or ""
    if not _is_name(name) or not (own in _WILDCARD_NAMES or Address(own, 0).is_loopback):
        return websocket_url
    return url._replace(netloc=str(Address(name, url.port or 80))).geturl()


def policy_source(websocket_url: str) -> str:
    """Write a WebSocket URL as a source of a Content-Security-Policy, whose grammar knows no IPv6 addresses."""
    url = urlsplit(websocket_url)
    name = url.hostname or ""
    return f"{url.scheme}://{'*' if ':' in name else name}:{url.port}"


def _is_name(name: str) -> bool:
    return bool(_DNS_NAME.fullmatch(name)) or (":" in name and bool(re.fullmatch(r"[0-9a-f:.]{2,45}", name)))
