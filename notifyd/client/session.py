"""What outlives a connection: the session's name and its feeds. Decides what a new connection has to ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from notifyd.client.feed import QUEUE_MESSAGES, Acknowledge, Feed, Push, ReadHistory
from notifyd.client.track import position_of
from protocol.errors import ErrorCode, RequestError
from protocol.messages import Connected, Published, Since
from protocol.position import Position
from protocol.topics import check_topic

POSITIONS_BYTES = 2048
"""Half of what a client may send before it is connected; the token has the other half (spec/wire.md, "Limits")."""


@dataclass(slots=True)
class Plan:
    """What has to be asked of the server: topics to leave first, then feeds to subscribe. `going_on` need nothing."""

    unsubscribe: list[str] = field(default_factory=list)
    subscribe: list[Feed] = field(default_factory=list)
    going_on: list[Feed] = field(default_factory=list)


class ClientSession:
    """The session's name and the feeds by topic. `name` is None before the first connection."""

    def __init__(self, name: str | None, read_history: ReadHistory, acknowledge: Acknowledge) -> None:
        self.name = name
        self.feeds: dict[str, Feed] = {}
        self._has_begun = False
        self._named: dict[str, Position] = {}
        self._failure: Exception | None = None
        self._read_history = read_history
        self._acknowledge = acknowledge

    def name_positions(self) -> dict[str, Position] | None:
        """Return where topics are to be resumed, as many as a `connect` has room for."""
        self._named = {}
        left_bytes = POSITIONS_BYTES
        for topic, feed in self.feeds.items():
            if feed.position is not None:
                left_bytes -= len(msgspec.json.encode({topic: feed.position}))
                if left_bytes < 0:
                    break
                self._named[topic] = feed.position
        return self._named or None

    def enroll(
        self, topic: str, since: Since, *, queue_messages: int = QUEUE_MESSAGES, joins: bool = False
    ) -> tuple[Feed, Plan]:
        """Add a feed, or claim the one that the server opened by itself; also plan what to ask of the server now.

        Raises RequestError 400 for what is no topic and 409 for one that is subscribed already.
        """
        if self._failure is not None:
            raise self._failure
        try:
            check_topic(topic)
        except ValueError as problem:
            raise RequestError(ErrorCode.BAD_REQUEST, str(problem)) from None
        feed = self.feeds.get(topic)
        if feed is not None and feed.is_claimed:
            raise RequestError(ErrorCode.CONFLICT, f"this client has a subscription of {topic!r} already")
        plan = Plan()
        if feed is None or since != "latest":
            plan.unsubscribe = [] if feed is None else [topic]
            feed = self._add(topic, since)
            plan.subscribe = [feed]
        feed.is_claimed = True
        feed.queue_messages = queue_messages
        feed.joins = joins
        return feed, plan

    def has(self, feed: Feed) -> bool:
        """Whether this very feed is still wanted."""
        return self.feeds.get(feed.topic) is feed

    def withdraw(self, feed: Feed, failure: Exception) -> bool:
        """Remove a feed and let whoever still iterates over it fail; False when it was removed before."""
        feed.end(failure)
        if not self.has(feed):
            return False
        del self.feeds[feed.topic]
        return True

    @contextmanager
    def silence(self, topic: str) -> Iterator[list[Published]]:
        """Let the topic's feed expect a publish that is not echoed; put the answer into the list where there is one."""
        answers: list[Published] = []
        feed = self.feeds.get(topic)
        if feed is None:
            yield answers
            return
        feed.expect_silence()
        try:
            yield answers
        finally:
            feed.end_silence(position_of(answers[0]) if answers else None)

    def welcome(self, reply: Connected) -> Plan:
        """Take the server's word for the session, begin the feeds it restored, and plan the rest.

        Topics that only the server knows (a session resumed from an earlier process, a token's own topics) become feeds
        that wait to be claimed; after a later reconnect they are those the user has left, and are left again.
        """
        plan = Plan()
        restored = {} if reply.topics is UNSET else reply.topics
        for topic, feed in self.feeds.items():
            if topic in restored and self._goes_on(feed, resumed=reply.resumed):
                feed.begin(feed.position or "latest", restored[topic])
                plan.going_on.append(feed)
                continue
            if topic in restored:
                plan.unsubscribe.append(topic)
            plan.subscribe.append(feed)
        for topic in restored.keys() - self.feeds.keys():
            if self._has_begun:
                plan.unsubscribe.append(topic)
            else:
                self._add(topic, "latest").begin("latest", restored[topic])
        self.name = reply.session
        self._has_begun = True
        return plan

    def push(self, push: Push) -> None:
        """Hand what the server pushed to its feed; without one it is late, and nobody's."""
        feed = self.feeds.get(push.topic)
        if feed is not None:
            feed.push(push)

    def pause(self) -> None:
        """Let no feed take anything until it is begun again: the connection is gone."""
        for feed in self.feeds.values():
            feed.pause()

    def end(self, failure: Exception) -> None:
        """End every feed, and those still to come: there will be no connection any more."""
        self._failure = failure
        for feed in self.feeds.values():
            feed.end(failure)

    def _goes_on(self, feed: Feed, *, resumed: bool) -> bool:
        """Whether a topic that `connected` brought goes on where this feed stands.

        A resumed one does, by the position that `connect` named. One that a token brought begins with the newest.
        """
        return feed.since == "latest" or (resumed and feed.topic in self._named)

    def _add(self, topic: str, since: Since) -> Feed:
        feed = self.feeds[topic] = Feed(topic, since, self._read_history, self._acknowledge)
        return feed
