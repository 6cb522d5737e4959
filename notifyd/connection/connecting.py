"""From opened to connected: who the client is, which session it goes on with, which topics it has from the start."""

from collections.abc import Iterable
from dataclasses import replace

from msgspec import UNSET

from notifyd.auth.permissions import may_subscribe
from notifyd.broker.base import SessionRecord
from notifyd.connection.connection import Connection
from notifyd.connection.context import Context
from notifyd.connection.door import Crowded
from notifyd.errors import BrokerUnavailable, Unauthorized
from notifyd.hub.recovery import CatchUp, Standing
from notifyd.hub.registry import Subscriber
from notifyd.model import ANONYMOUS, OPERATOR, Identity
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.messages import Connect, Connected, Restored
from protocol.position import Position

UNAUTHORIZED = "the token is missing or not accepted"
"""One answer for every bad token, so that nobody learns from it what was wrong."""


def authenticate(connection: Connection, token: str | None) -> Identity:
    """Tell who holds this token, or API key; without one, the anonymous user where that is configured.

    While no API key is configured, who is on this very machine is an operator too. Raises RequestError 401, the same
    for every reason; the log has the reason, of the first few in a minute.
    """
    context = connection.context
    key = context.api_keys.find(token)
    if key is not None:
        return Identity(OPERATOR, operator=True, api_key=key)
    is_anonymous = token is None and context.settings.auth.anonymous and not connection.needs_token
    identity = ANONYMOUS if is_anonymous else _verify(connection, token)
    return replace(identity, operator=True) if connection.is_local and not context.api_keys else identity


def _verify(connection: Connection, token: str | None) -> Identity:
    context = connection.context
    try:
        return context.verifier.verify(token or "")
    except Unauthorized as refusal:
        context.events.count("token_refusals", reason="missing" if token is None else refusal.reason)
        connection.log("warning", "token_refused", problem=str(refusal), address=connection.stream.peer)
        raise RequestError(ErrorCode.UNAUTHORIZED, UNAUTHORIZED) from None


async def connect(connection: Connection, request: Connect, identity: Identity, topics: Iterable[str]) -> None:
    """Make the client a subscriber: a resumed session with its topics, or a new one; then those it has by right.

    The answer goes out first, then what each topic missed. Raises RequestError 400 for a bad `heartbeat`, 401 for a
    token or key that is accepted no more, 503 where too many clients come at the same time.
    """
    context = connection.context
    heartbeat_s = connection.watch.agree(request.heartbeat)
    try:
        await connection.let_in()
    except Crowded as crowd:
        connection.refused("crowd")
        raise RequestError(ErrorCode.UNAVAILABLE, str(crowd), retry_after_s=crowd.retry_after_s) from None
    record = await _resume(context, request, identity)
    identity = _still_accepted(connection, identity)
    subscriber = Subscriber(
        session=record.session if record else context.hub.new_session(),
        user=identity.user,
        outbox=connection.outbox,
        client=connection,
        since_ms=connection.opened_ms,
        identity=identity,
    )
    connection.log("debug", "connection_connected", user=identity.user, resumed=record is not None)
    if record is not None:
        subscriber.restoring, subscriber.acknowledged = dict(record.positions), record.acknowledged
    connection.enter(identity, subscriber)
    catch_ups = await _subscribe_all(connection, subscriber, _wanted(request, record, topics))
    if record is not None:
        _keep_acknowledgements(record, catch_ups)
        await context.hub.restored(subscriber)
    connection.send(
        Connected(
            id=request.id or UNSET,
            session=subscriber.session,
            resumed=record is not None,
            user=identity.user,
            node=context.settings.node.name,
            heartbeat=heartbeat_s,
            expires=UNSET if identity.expires_s is None else int(identity.expires_s),
            topics={name: _restored(catch_up.standing) for name, catch_up in catch_ups.items()} or UNSET,
        )
    )
    for catch_up in catch_ups.values():
        connection.replay(catch_up, tell_gap=True)


def _still_accepted(connection: Connection, identity: Identity) -> Identity:
    """Judge anew what was shown before the client had to wait. Raises RequestError 401, and ends the connection."""
    context = connection.context
    has_lost_key = identity.api_key is not None and not context.api_keys.holds_digest(identity.api_key)
    if has_lost_key or context.hub.revocations.covers(identity, context.clock.unix_s()):
        connection.end(CloseCode.UNAUTHORIZED, "the token is not accepted")
        raise RequestError(ErrorCode.UNAUTHORIZED, UNAUTHORIZED)
    needs_key = identity.operator and identity.api_key is None and bool(context.api_keys)
    return replace(identity, operator=False) if needs_key else identity


async def _resume(context: Context, request: Connect, identity: Identity) -> SessionRecord | None:
    if request.session is None:
        return None
    record = await context.hub.resume(request.session, identity.user)
    context.events.count("resumes", outcome="unknown" if record is None else "resumed")
    return record


def _wanted(request: Connect, record: SessionRecord | None, topics: Iterable[str]) -> dict[str, Position | None]:
    """Collect the topics to subscribe, each with the position to go on from (None: from now on)."""
    wanted: dict[str, Position | None] = dict.fromkeys(topics)
    if record is not None:
        positions = request.positions or {}
        wanted |= {topic: positions.get(topic, position) for topic, position in record.positions.items()}
    return wanted


async def _subscribe_all(
    connection: Connection, subscriber: Subscriber, wanted: dict[str, Position | None]
) -> dict[str, CatchUp]:
    """Subscribe to what the client may still have; what it may not is left out of the answer."""
    hub, settings = connection.context.hub, connection.context.settings
    try:
        return {
            topic: await hub.subscribe(subscriber, topic, "latest" if position is None else position)
            for topic, position in wanted.items()
            if connection.identity and may_subscribe(connection.identity, topic, settings.policy_for(topic).subscribe)
        }
    except BrokerUnavailable:
        connection.end(CloseCode.RESTART, "the broker is away")  # half restored is no state to be in
        raise


def _keep_acknowledgements(record: SessionRecord, catch_ups: dict[str, CatchUp]) -> None:
    """Let what was acknowledged before hold until more is: a message that was only sent may come again."""
    for topic in record.acknowledged & catch_ups.keys():
        if catch_ups[topic].standing.recovered:
            catch_ups[topic].subscription.acknowledged = record.positions[topic]


def _restored(standing: Standing) -> Restored:
    if standing.position is None:
        return Restored(scope=UNSET if standing.scope is None else standing.scope)
    recovered = UNSET if standing.recovered is None else standing.recovered
    return Restored(epoch=standing.position.epoch, offset=standing.position.offset, recovered=recovered)
