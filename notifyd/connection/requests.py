"""What a client can ask for: one handler an `op`. A new command is a Struct in protocol/messages.py and a handler here.

A handler returns the reply, or None for none; it raises RequestError to refuse. Handlers of one connection run one
after the other, in the order of the requests.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import UNSET

from notifyd.auth.permissions import may_publish, may_subscribe
from notifyd.broker.base import Accepted
from notifyd.connection.connecting import authenticate, connect
from notifyd.connection.connection import Connection
from notifyd.errors import BrokerUnavailable
from notifyd.hub.delivery import HISTORY_REPLY_BYTES, to_history_reply
from notifyd.hub.outbox import REPLAY_SHARE
from notifyd.hub.registry import Subscriber
from notifyd.model import Identity
from notifyd.tracing import Step
from protocol.errors import CloseCode, ErrorCode, LocalProtocolError, RequestError
from protocol.framing import Encoding
from protocol.messages import (
    Ack,
    Acked,
    Call,
    Connect,
    Error,
    History,
    HistoryReply,
    Ping,
    Pong,
    Presence,
    PresenceReply,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    ServerMessage,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    decode_request,
)
from protocol.topics import check_topic
from protocol.trace import read_trace

Handler = Callable[[Connection, Any], Awaitable[ServerMessage | None]]


async def answer(connection: Connection, payload: bytes | str, encoding: Encoding) -> None:
    """Read a request, have it handled, and queue the reply or the error.

    Raises RemoteProtocolError for what is no request at all, and for a flood.
    """
    request_id: int | None = None
    try:
        request = _read(connection, payload, encoding)
        request_id = request.id
        reply = await HANDLERS[type(request)](connection, request)
    except RequestError as error:
        reply = to_error(error, error.request_id or request_id)
        if error.code is ErrorCode.RATE_LIMITED:
            connection.context.events.count("rate_limited", kind="requests")
    except BrokerUnavailable as failure:
        reply = Error(
            code=ErrorCode.UNAVAILABLE,
            reason="unavailable",
            message=f"the broker is away: {failure}",
            id=request_id or UNSET,
            retry_after=failure.retry_after_s,
        )
    if reply is not None:
        try:
            await connection.reply(reply)
        except LocalProtocolError:
            too_large = RequestError(ErrorCode.TOO_LARGE, "the answer does not fit a frame")
            connection.send(to_error(too_large, request_id))


def to_error(error: RequestError, request_id: int | None) -> Error:
    """Write a refusal as an `error` message."""
    return Error(
        code=error.code,
        reason=error.reason,
        message=error.message,
        id=request_id or UNSET,
        retry_after=UNSET if error.retry_after_s is None else error.retry_after_s,
    )


def _read(connection: Connection, payload: bytes | str, encoding: Encoding) -> Request:
    """Decode a request and count it; before `connect`, allow that and `ping` only."""
    try:
        request = decode_request(payload, encoding)
    except RequestError as error:
        _count(connection, error.request_id)
        raise
    if type(request) is Ping:
        connection.limits.take_heartbeats(1, connection.now_s)
    elif type(request) is not Ack:
        _count(connection, request.id)
    if connection.subscriber is None and type(request) is not Connect and type(request) is not Ping:
        raise RequestError(ErrorCode.UNAUTHORIZED, "send 'connect' first", request_id=request.id)
    return request


def _count(connection: Connection, request_id: int | None) -> None:
    try:
        connection.limits.take_request(connection.now_s)
    except RequestError as error:
        error.request_id = request_id
        raise


# --- the handlers ----------------------------------------------------------------------------------------------------


async def _connect(connection: Connection, request: Connect) -> None:
    if connection.subscriber is not None:
        raise RequestError(ErrorCode.CONFLICT, "already connected")
    try:
        identity = authenticate(connection, request.token)
    except RequestError:
        connection.end(CloseCode.UNAUTHORIZED, "the token is not accepted")
        raise
    await connect(connection, request, identity, identity.topics)


async def _subscribe(connection: Connection, request: Subscribe) -> None:
    subscriber, topic = _subscriber(connection), _topic(request.topic)
    _require_subscribe(connection, topic)
    catch_up = await connection.context.hub.subscribe(subscriber, topic, request.since)
    standing = catch_up.standing
    reply = Subscribed(id=request.id, topic=topic)
    if standing.position is not None:
        reply.epoch, reply.offset = standing.position.epoch, standing.position.offset
    if standing.recovered is not None:
        reply.recovered = standing.recovered
    if standing.scope is not None:
        reply.scope = standing.scope
    connection.send(reply)
    connection.replay(catch_up)


async def _unsubscribe(connection: Connection, request: Unsubscribe) -> Unsubscribed:
    topic = _topic(request.topic)
    await connection.context.hub.unsubscribe(_subscriber(connection), topic)
    return Unsubscribed(topic=topic, id=request.id)


async def _publish(connection: Connection, request: Publish) -> Published | None:
    hub, topic = connection.context.hub, _topic(request.topic)
    trace = None if request.trace is None else read_trace(request.trace)
    with hub.tracer.begin(Step.ACCEPT, topic, trace) as step:
        step.tell(transport=connection.transport_name)
        published = await _accept(connection, request, topic, step.trace)
    connection.context.events.count("messages_published", transport=connection.transport_name)
    if request.id is None:
        return None
    reply = Published(id=request.id, topic=topic)
    if published.position is not None:
        reply.epoch, reply.offset = published.position.epoch, published.position.offset
    if published.scope is not None:
        reply.scope = published.scope
    return reply


async def _accept(connection: Connection, request: Publish, topic: str, trace: str | None) -> Accepted:
    policy, subscriber = connection.context.settings.policy_for(topic), _subscriber(connection)
    if not may_publish(_identity(connection), topic, policy.publish):
        connection.context.events.count("permission_refusals", operation="publish")
        raise RequestError(ErrorCode.FORBIDDEN, f"not allowed to publish to {topic!r}")
    return await connection.context.hub.publish(
        topic,
        request.data,
        key=request.key,
        sender=subscriber.user,
        origin=None if request.echo else subscriber.session,
        trace=trace,
    )


async def _ack(connection: Connection, request: Ack) -> Acked | None:
    topic = _topic(request.topic)
    offset = connection.context.hub.acknowledge(_subscriber(connection), topic, request.offset)
    return None if request.id is None else Acked(id=request.id, topic=topic, offset=offset)


async def _presence(connection: Connection, request: Presence) -> PresenceReply:
    topic = _topic(request.topic)
    _require_subscribe(connection, topic)
    return PresenceReply(id=request.id, topic=topic, members=await connection.context.hub.presence(topic))


async def _history(connection: Connection, request: History) -> HistoryReply:
    topic = _topic(request.topic)
    _require_subscribe(connection, topic)
    page = await connection.context.hub.history(topic, request.since, request.limit)
    settings, encoding = connection.context.settings, connection.outbox.form.encoding
    room_bytes = min(HISTORY_REPLY_BYTES, settings.limits.queue_bytes // REPLAY_SHARE)
    policy = settings.policy_for(topic)
    return to_history_reply(request.id, topic, page, encoding, policy=policy, room_bytes=room_bytes)


async def _call(connection: Connection, request: Call) -> None:  # noqa: ARG001 - no backend is routed to yet
    raise RequestError(ErrorCode.NOT_FOUND, f"unknown method {request.method[:64]!r}", reason="unknown_method")


async def _refresh(connection: Connection, request: Refresh) -> Refreshed:
    identity = authenticate(connection, request.token)
    if identity.user != _identity(connection).user:
        raise RequestError(ErrorCode.FORBIDDEN, "the token is another user's")
    connection.identity = identity
    connection.watch.expire_at(identity.expires_s)
    connection.context.connections.schedule(connection)
    subscriber = _subscriber(connection)
    subscriber.identity = identity
    for topic in list(subscriber.subscriptions):
        if not may_subscribe(identity, topic, connection.context.settings.policy_for(topic).subscribe):
            await connection.context.hub.unsubscribe(subscriber, topic)
            connection.send(Unsubscribed(topic=topic, reason="forbidden"))
    return Refreshed(id=request.id, expires=UNSET if identity.expires_s is None else int(identity.expires_s))


async def _ping(connection: Connection, request: Ping) -> Pong:  # noqa: ARG001 - it was heard, that is all
    return Pong(id=request.id)


HANDLERS: dict[type[Request], Handler] = {
    Connect: _connect,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    Publish: _publish,
    Ack: _ack,
    Presence: _presence,
    History: _history,
    Call: _call,
    Refresh: _refresh,
    Ping: _ping,
}


def _topic(topic: str) -> str:
    try:
        return check_topic(topic)
    except ValueError as problem:
        raise RequestError(ErrorCode.BAD_REQUEST, str(problem)) from None


def _require_subscribe(connection: Connection, topic: str) -> None:
    if not may_subscribe(_identity(connection), topic, connection.context.settings.policy_for(topic).subscribe):
        connection.context.events.count("permission_refusals", operation="subscribe")
        raise RequestError(ErrorCode.FORBIDDEN, f"not allowed to subscribe to {topic!r}")


def _subscriber(connection: Connection) -> Subscriber:
    assert connection.subscriber is not None
    return connection.subscriber


def _identity(connection: Connection) -> Identity:
    assert connection.identity is not None
    return connection.identity
