"""A node as its HTTP listener sees it, made of lists."""

from collections.abc import Sequence
from typing import Literal

import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Accepted
from notifyd.listeners.http.backend import ConnectionInfo, Publication, TopicInfo
from notifyd.settings import Layers, Settings
from notifyd.supervision import TreeNode
from protocol.connecting import ConnectionState
from protocol.errors import ErrorCode, RequestError
from protocol.messages import Entry, HistoryReply, Member
from protocol.position import Position
from protocol.topics import Pattern
from tests.kit.centre_kit import CentreKit

CONNECTION = ConnectionInfo(
    session="s1",
    user="ada",
    transport="websocket",
    encoding="json",
    address="127.0.0.1:1",
    since=1_790_000_000_000,
    heard=1_790_000_000_500,
    heartbeat=30.0,
    round_trip_ms=None,
    queue_bytes=0,
    topics=["chat:room1"],
)


class NodeStandIn:
    """Keeps what it is given; `failure` is raised by whatever is asked next, `pause` is waited for before."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.batches: list[int] = []
        self.asked: list[tuple[object, ...]] = []
        self.refused_topics: set[str] = set()
        self.local_topics: set[str] = set()
        self.reasons: list[str] = []
        self.sessions = {"s1"}
        self.revoked: list[Revocation] = []
        self.failure: Exception | None = None
        self.pause: trio.Event | None = None
        self.begun = trio.Event()
        self.use(CentreKit(Layers.of(Settings())))

    def use(self, kit: CentreKit) -> None:
        """Let the settings be those of this kit."""
        self.kit = kit
        self.centre = kit.centre

    @property
    def settings(self) -> Settings:
        return self.kit.settings

    async def _meet(self) -> None:
        self.begun.set()
        if self.pause is not None:
            await self.pause.wait()
        if self.failure is not None:
            raise self.failure

    async def publish(self, publication: Publication) -> Accepted:
        await self._meet()
        if publication.topic in self.refused_topics:
            raise RequestError(ErrorCode.UNAVAILABLE, "not now", retry_after_s=1.5)
        self.published.append(publication)
        if publication.topic in self.local_topics:
            return Accepted(None, "node")
        return Accepted(Position("e1", len(self.published)))

    async def publish_batch(self, publications: Sequence[Publication]) -> list[Accepted | RequestError]:
        self.batches.append(len(publications))
        results: list[Accepted | RequestError] = []
        for publication in publications:
            try:
                results.append(await self.publish(publication))
            except RequestError as error:
                results.append(error)
        return results

    async def topics(self, pattern: Pattern | None, limit: int) -> tuple[list[TopicInfo], bool]:
        self.asked.append((pattern, limit))
        await self._meet()
        return [TopicInfo("chat:room1", 2, "e1", 7), TopicInfo("plain", 0)], True

    async def history(self, topic: str, since: Position | Literal["earliest"], limit: int) -> HistoryReply:
        self.asked.append((topic, since, limit))
        entry = Entry(topic=topic, data={"n": 1, "raw": b"\0\xff"}, epoch="e1", offset=1, time=5, sender="ada")
        return HistoryReply(id=1, topic=topic, messages=[entry], more=False, epoch="e1")

    async def presence(self, topic: str) -> list[Member]:
        self.asked.append((topic,))
        return [Member(user="ada", session="s1", since=5)]

    async def readiness(self) -> list[str]:
        await self._meet()
        return self.reasons

    def connections(self, user: str | None, limit: int) -> tuple[list[ConnectionInfo], bool]:
        self.asked.append((user, limit))
        return [CONNECTION], False

    async def disconnect(self, session: str) -> bool:
        await self._meet()
        known = session in self.sessions
        self.sessions.discard(session)
        return known

    async def revoke(self, revocation: Revocation) -> None:
        await self._meet()
        self.revoked.append(revocation)

    def revocations(self) -> list[Revocation]:
        return self.revoked

    def tree(self) -> TreeNode:
        leaf = TreeNode("http", ConnectionState.CONNECTED, 0, 5)
        return TreeNode("node", ConnectionState.CONNECTED, 0, 1, "was away", (leaf,))

    async def metrics(self) -> bytes:
        return b"# TYPE up gauge\nup 1\n"
