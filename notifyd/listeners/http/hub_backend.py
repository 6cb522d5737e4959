"""The node as its HTTP side sees it: the hub, its connections and its supervision tree behind `Backend`."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Literal

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Accepted
from notifyd.centre import Centre
from notifyd.connection.connection import Connection
from notifyd.connection.context import Context
from notifyd.errors import BrokerUnavailable
from notifyd.hub.delivery import to_history_reply
from notifyd.listeners.http.backend import ConnectionInfo, Publication, TopicInfo
from notifyd.model import SessionId
from notifyd.settings import Settings
from notifyd.supervision import TreeNode
from notifyd.tracing import Step
from protocol.errors import ErrorCode, RequestError
from protocol.framing import Encoding
from protocol.messages import NO_REQUEST_ID, HistoryReply, Member
from protocol.position import Position
from protocol.topics import Pattern, is_reserved


class HubBackend:
    """Implements `notifyd.listeners.http.backend.Backend` for a running node."""

    def __init__(
        self,
        context: Context,
        centre: Centre,
        *,
        tree: Callable[[], TreeNode],
        metrics: Callable[[], Awaitable[bytes]],
        problems: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._context = context
        self._hub = context.hub
        self.centre = centre
        self.tree = tree
        self._metrics = metrics
        self._problems = problems

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._context.settings

    async def publish(self, publication: Publication) -> Accepted:
        """Accept one message."""
        topic, data, key = publication.topic, publication.data, publication.key
        with self._hub.tracer.begin(Step.ACCEPT, topic, publication.trace) as step:
            step.tell(transport="http")
            published = await self._hub.publish(topic, data, key=key, trace=step.trace)
        self._context.events.count("messages_published", transport="http")
        return published

    async def publish_batch(self, publications: Sequence[Publication]) -> list[Accepted | RequestError]:
        """Accept messages in order; the fan-out sends what they bring to a connection in one piece."""
        results: list[Accepted | RequestError] = []
        for publication in publications:
            try:
                results.append(await self.publish(publication))
            except RequestError as refusal:
                results.append(refusal)
            except BrokerUnavailable as failure:
                results.append(RequestError(ErrorCode.UNAVAILABLE, str(failure), retry_after_s=failure.retry_after_s))
        return results

    async def topics(self, pattern: Pattern | None, limit: int) -> tuple[list[TopicInfo], bool]:
        """List topics by name, without those of the server (`$…`)."""
        here = self._hub.registry.topics
        known = await self._hub.broker.topics()
        names = sorted(name for name in {*known, *here} if not is_reserved(name))
        matching = [name for name in names if pattern is None or pattern.matches(name)]
        listed = []
        for name in matching[:limit]:
            subscribers = here[name].subscribers if name in here else 0
            position = known.get(name)
            if position is None:
                listed.append(TopicInfo(name, subscribers))
            else:
                listed.append(TopicInfo(name, subscribers, position.epoch, position.offset))
        return listed, len(matching) > limit

    async def history(self, topic: str, since: Position | Literal["earliest"], limit: int) -> HistoryReply:
        """Read kept messages."""
        page = await self._hub.history(topic, since, limit)
        return to_history_reply(
            NO_REQUEST_ID, topic, page, Encoding.JSON, policy=self._context.settings.policy_for(topic)
        )

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is subscribed."""
        return await self._hub.presence(topic)

    async def metrics(self) -> bytes:
        """Write all metrics of the node."""
        return await self._metrics()

    async def readiness(self) -> list[str]:
        """Tell what keeps the node from serving."""
        return await self._problems()

    def connections(self, user: str | None, limit: int) -> tuple[list[ConnectionInfo], bool]:
        """List connected clients, the longest connected first."""
        matching = (
            connection
            for connection in self._context.connections
            if connection.subscriber is not None and user in (None, connection.subscriber.user)
        )
        listed = [describe_connection(connection) for connection in islice(matching, limit + 1)]
        return listed[:limit], len(listed) > limit

    async def disconnect(self, session: str) -> bool:
        """End a session's connection, here or on another node: its client is forbidden to come back by itself."""
        named = SessionId(session)
        return self._hub.end_session(named) or await self._hub.broker.end_session(named)

    async def revoke(self, revocation: Revocation) -> None:
        """Tell every node."""
        await self._hub.revoke(revocation)

    def revocations(self) -> list[Revocation]:
        """List the revocations that this node knows to be in force."""
        return self._hub.revocations.in_force(self._context.clock.unix_s())


def describe_connection(connection: Connection) -> ConnectionInfo:
    """Describe a connected client, as `GET /v1/connections` does."""
    subscriber = connection.subscriber
    assert subscriber is not None
    liveness, clock = connection.watch.liveness, connection.context.clock
    silent_s = clock.monotonic_s() - liveness.heard_s
    round_trip_s = liveness.round_trip_s
    return ConnectionInfo(
        session=subscriber.session,
        user=subscriber.user,
        transport=connection.transport_name,
        encoding=connection.outbox.form.encoding.name.lower(),
        address=connection.stream.peer,
        since=connection.opened_ms,
        heard=clock.unix_ms() - round(silent_s * 1000),
        heartbeat=liveness.interval_s,
        round_trip_ms=None if round_trip_s is None else round(round_trip_s * 1000, 3),
        queue_bytes=connection.outbox.queued_bytes,
        topics=sorted(subscriber.subscriptions),
    )
