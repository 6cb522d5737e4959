"""What an operator asks of a node: topics, history, presence, connections, the tree, health and metrics.

Source: spec/http.md, "Looking".
"""

from http import HTTPStatus
from urllib.parse import unquote

import trio
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from notifyd.listeners.http.answers import COMMON_HEADERS, Problem, Refusal, empty_answer, json_answer
from notifyd.listeners.http.backend import Backend, ConnectionInfo, TopicInfo
from notifyd.listeners.http.parameters import (
    ConnectionsQuery,
    HistoryQuery,
    NoQuery,
    TopicsQuery,
    read_pattern,
    read_query,
    read_since,
    read_topic,
)
from protocol.messages import Entry, Member

READY_S = 2.0
"""A broker that does not answer a probe for this long does not serve anybody."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class TopicsAnswer(Struct, frozen=True):
    """The topics in use; `more` when the limit left some out."""

    topics: list[TopicInfo]
    more: bool


class HistoryAnswer(Struct, frozen=True):
    """A topic's kept messages: the wire's reply without `op` and `id`."""

    topic: str
    messages: list[Entry]
    more: bool
    epoch: str | UnsetType = UNSET


class PresenceAnswer(Struct, frozen=True):
    """Who is subscribed: the wire's reply without `op` and `id`."""

    topic: str
    members: list[Member]


class ConnectionsAnswer(Struct, frozen=True):
    """The connected clients; `more` when the limit left some out."""

    connections: list[ConnectionInfo]
    more: bool


class HealthAnswer(Struct, frozen=True):
    """The process runs."""

    status: str = "ok"


class ReadyAnswer(Struct, frozen=True):
    """Whether the node serves; if not, why not, also in the form of every other error."""

    ready: bool
    reasons: list[str]
    error: Problem | UnsetType = UNSET


class Inspection:
    """The endpoints that look at a node, and the one that ends a connection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def topics(self, request: Request) -> Response:
        """Answer `GET /v1/topics`."""
        query = read_query(request, TopicsQuery)
        return json_answer(TopicsAnswer(*await self._backend.topics(read_pattern(query.match), query.limit)))

    async def history(self, request: Request) -> Response:
        """Answer `GET /v1/topics/{topic}/history`."""
        topic, query = read_topic(request), read_query(request, HistoryQuery)
        reply = await self._backend.history(topic, read_since(query.since), query.limit)
        return json_answer(HistoryAnswer(reply.topic, reply.messages, reply.more, reply.epoch))

    async def presence(self, request: Request) -> Response:
        """Answer `GET /v1/topics/{topic}/presence`."""
        topic = read_topic(request)
        read_query(request, NoQuery)
        return json_answer(PresenceAnswer(topic, await self._backend.presence(topic)))

    async def connections(self, request: Request) -> Response:
        """Answer `GET /v1/connections`."""
        query = read_query(request, ConnectionsQuery)
        return json_answer(ConnectionsAnswer(*self._backend.connections(query.user, query.limit)))

    async def disconnect(self, request: Request) -> Response:
        """Answer `DELETE /v1/connections/{session}`."""
        read_query(request, NoQuery)
        if not await self._backend.disconnect(unquote(request.path_params["session"])):
            raise Refusal(HTTPStatus.NOT_FOUND, "no connection has this session", reason="unknown_session")
        return empty_answer()

    async def tree(self, request: Request) -> Response:
        """Answer `GET /v1/tree`."""
        read_query(request, NoQuery)
        return json_answer(self._backend.tree())

    async def health(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        """Answer `GET /health`: that it answers is the answer."""
        return json_answer(HealthAnswer())

    async def ready(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        """Answer `GET /ready`."""
        reasons = await self._reasons()
        if not reasons:
            return json_answer(ReadyAnswer(ready=True, reasons=[]))
        problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", f"not ready: {'; '.join(reasons)}")
        answer = ReadyAnswer(ready=False, reasons=reasons, error=problem)
        return json_answer(answer, HTTPStatus.SERVICE_UNAVAILABLE)

    async def _reasons(self) -> list[str]:
        with trio.move_on_after(READY_S):
            return await self._backend.readiness()
        return [f"the node did not answer within {READY_S:g} seconds"]

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002  an endpoint's signature
        """Answer `GET /metrics`."""
        return Response(await self._backend.metrics(), headers={**COMMON_HEADERS, "content-type": METRICS_TYPE})
