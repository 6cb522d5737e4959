"""The client for browsers at `/notifyd.js`, for the console and for every other page.

Source: spec/http.md, "The page"; protocol/js/README.md.
"""

from http import HTTPStatus
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from notifyd.listeners.http.answers import COMMON_HEADERS, NO_CONTENT_POLICY

CLIENT_SCRIPT = "/notifyd.js"

_HEADERS = {
    **COMMON_HEADERS,
    "content-security-policy": NO_CONTENT_POLICY,
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
}
"""A page of any site may import it: it is public code, and whether its WebSocket is accepted is another question."""


class ClientScript:
    """The endpoint of the module, as it lies in `protocol/js`."""

    def __init__(self) -> None:
        self._body = resources.files("protocol").joinpath("js", "notifyd.js").read_bytes()

    async def script(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        """Answer `GET /notifyd.js`."""
        return Response(self._body, HTTPStatus.OK, _HEADERS, "text/javascript")
