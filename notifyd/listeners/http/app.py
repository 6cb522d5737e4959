"""The HTTP application: which path leads where, and what every answer has in common.

Source: spec/http.md.
"""

import math
import traceback
from http import HTTPStatus

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifyd.clock import Clock
from notifyd.events import Events
from notifyd.listeners.http.answers import refused, request_refused, router_refused
from notifyd.listeners.http.backend import Backend
from notifyd.listeners.http.client_script import CLIENT_SCRIPT, ClientScript
from notifyd.listeners.http.configuring import Configuring
from notifyd.listeners.http.console_files import CONSOLE_FILES
from notifyd.listeners.http.guard import FACTS_PATH, AccessRules, Guard
from notifyd.listeners.http.inspection import Inspection
from notifyd.listeners.http.page import PageFiles
from notifyd.listeners.http.publishing import Publishing
from notifyd.listeners.http.revoking import Revoking
from protocol.errors import ErrorCode, RequestError

ANSWER_S = 60.0
"""A whole request, its body (30 s) and what the node does with it; the broker's own deadlines are shorter."""


def build_app(
    backend: Backend,
    *,
    access: AccessRules,
    payload_limit_bytes: int,
    websocket_url: str | None,
    events: Events,
) -> ASGIApp:
    """Compose the application. `websocket_url` is where the page connects, None where nothing listens."""
    publishing, revoking = Publishing(backend, payload_limit_bytes), Revoking(backend, Clock())
    configuring = Configuring(backend, access)
    app = Starlette(
        routes=[*_routes(Inspection(backend), publishing, revoking, PageFiles(websocket_url)), *_config(configuring)],
        middleware=[
            Middleware(Answering, events=events),
            Middleware(Guard, access=access),
        ],
        exception_handlers={HTTPException: _answer_router},
    )
    app.router.redirect_slashes = False
    return app


def _routes(look: Inspection, publishing: Publishing, revoking: Revoking, page: PageFiles) -> list[Route]:
    return [
        *(Route(path, page.file) for path in CONSOLE_FILES),
        Route(FACTS_PATH, page.facts),
        Route(CLIENT_SCRIPT, ClientScript().script),
        Route("/health", look.health),
        Route("/ready", look.ready),
        Route("/metrics", look.metrics),
        Route("/v1/publish", publishing.publish, methods=["POST"]),
        Route("/v1/topics", look.topics),
        Route("/v1/topics/{topic}/history", look.history),
        Route("/v1/topics/{topic}/presence", look.presence),
        Route("/v1/connections", look.connections),
        Route("/v1/connections/{session}", look.disconnect, methods=["DELETE"]),
        Route("/v1/revocations", revoking.revocations, methods=["GET", "POST"]),
        Route("/v1/tree", look.tree),
    ]


def _config(configuring: Configuring) -> list[Route]:
    return [
        Route("/v1/config", configuring.configuration, methods=["GET", "PATCH"]),
        Route("/v1/config/history", configuring.history),
        Route("/v1/config/rollback", configuring.rollback, methods=["POST"]),
    ]


class Answering:
    """The outermost ASGI middleware: every request gets an answer, every failure becomes one, and is counted.

    A refusal is the client's business; anything else is ours, logged once in one line and answered with 500.
    """

    def __init__(self, app: ASGIApp, *, events: Events) -> None:
        self._app = app
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens behind."""
        # Routes and the guard see the path as it came: an encoded slash inside a topic is part of the topic, and no
        # spelling of a path is open where another one is not. Endpoints decode their own part.
        scope["path"] = scope["raw_path"].decode("ascii")
        with trio.CancelScope(deadline=trio.current_time() + ANSWER_S) as patience:

            async def begin(message: Message) -> None:
                # Once it is known, an answer has the time its connection gives it: it must not be begun twice.
                patience.deadline = math.inf
                await send(message)

            try:
                await self._app(scope, receive, begin)
            except Exception as failure:
                answer = refused(failure) or self._failed(failure)
                if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    self._events.count("permission_refusals", operation="http")
                await answer(scope, receive, begin)
        if patience.cancelled_caught:
            late = RequestError(ErrorCode.TIMEOUT, f"the node did not answer within {ANSWER_S:g} seconds")
            await request_refused(late)(scope, receive, send)

    def _failed(self, failure: Exception) -> Response:
        self._events.count("barrier_hits", place="http")
        self._events.log("error", "http_request_failed", traceback="".join(traceback.format_exception(failure)))
        return request_refused(RequestError(ErrorCode.INTERNAL, "the node failed to answer; its log says more"))


async def _answer_router(request: Request, failure: Exception) -> Response:  # noqa: ARG001  Starlette's signature
    """Answer what Starlette's router refuses by itself."""
    assert isinstance(failure, HTTPException)
    return router_refused(failure)
