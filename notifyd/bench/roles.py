"""The kinds of clients that a load is made of: who counts what it gets, who publishes, who sends heartbeats."""

from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

from notifyd.bench.counting import NO_CARRY
from notifyd.bench.inbox import HeardMessage, LinkEnded, last_words
from notifyd.bench.links import WOULD_BLOCK, LoadLink, now
from notifyd.bench.payload import FIRST_ID
from protocol.codec import FrameType

if TYPE_CHECKING:
    from notifyd.bench.scenarios import HeartbeatLoad, PublishLoad
    from notifyd.bench.worker import LoadWorker

_LAST_ID = 2**32 - 1


class CountingLink(LoadLink):
    """Counts the messages it gets, without parsing them. `missing` is how many it still has to get."""

    __slots__ = ("_carry", "_receive", "missing")

    def __init__(self, worker: "LoadWorker", number: int, topic: str | None) -> None:
        super().__init__(worker, number, topic)
        self.missing = 0
        self._carry = NO_CARRY

    def opened(self) -> None:
        """Count from here on, beginning with what has come already."""
        self._carry = NO_CARRY
        self._receive = self._socket.recv_into
        self.worker.watch(self, self.count, EPOLLIN)
        rest = self.inbox.take_rest()
        self.worker.arrivals.space[: len(rest)] = rest
        self._take(len(rest))

    def count(self, mask: int) -> None:
        """Read once, as much as there is, and count it."""
        if mask & EPOLLOUT:
            self._flush()
        arrivals = self.worker.arrivals
        try:
            size = self._receive(arrivals.space)
        except WOULD_BLOCK:
            return
        if not size:
            raise LinkEnded(last_words(self._carry, is_device=self.worker.is_device))
        self._take(size)

    def _take(self, size: int) -> None:
        found, ping, self._carry = self.worker.arrivals.take(self._carry, size)
        if ping is not None:
            self.send(self.worker.dialect.heartbeat(FrameType.PONG, ping))
        if self.missing:
            self.missing = max(0, self.missing - found)
            if not self.missing:
                self.worker.made_whole(self)


class SendingLink(LoadLink):
    """Sends when it is its turn."""

    __slots__ = ()

    @property
    def has_room(self) -> bool:
        """Whether it may send now."""
        return self.is_open

    def send_one(self, due_ns: int) -> None:
        """Send once; `due_ns` is what the latency counts from."""
        raise NotImplementedError


class PublishingLink(SendingLink):
    """Publishes on topics in turn, and waits for the replies; `quota` is how many times at most, where there is one."""

    __slots__ = ("_next_id", "_turn", "quota", "rests_until_ns", "topics", "waiting", "work")

    def __init__(self, work: "PublishLoad", number: int, topics: list[int]) -> None:
        super().__init__(work.worker, number, None)
        self.work = work
        self.topics = topics
        self.waiting: dict[int, tuple[int, int]] = {}
        """By the ids of requests that are not answered: when they were due, and their topics."""
        self.quota: int | None = None
        self.rests_until_ns = 0
        """A server that limits the rate says when it takes more."""
        self._turn = 0
        self._next_id = FIRST_ID

    @property
    def has_room(self) -> bool:
        """Whether another request may be under way."""
        is_free = self.is_open and not self.rests_until_ns
        return is_free and len(self.waiting) < self.work.in_flight and self.quota != 0

    def send_one(self, due_ns: int) -> None:
        """Publish once."""
        self.send(self._make(due_ns))

    def fill(self, stamp_ns: int) -> None:
        """Publish as often as there is room, in one write."""
        requests = []
        while self.has_room:
            requests.append(self._make(stamp_ns))
        if requests:
            self.send(b"".join(requests))

    def _make(self, stamp_ns: int) -> bytes:
        topic = self.topics[self._turn]
        self._turn = (self._turn + 1) % len(self.topics)
        request_id = self._next_id
        self._next_id = FIRST_ID if request_id == _LAST_ID else request_id + 1
        self.waiting[request_id] = stamp_ns, topic
        if self.quota is not None:
            self.quota -= 1
        return self.worker.publish_request(topic).make(request_id, stamp_ns)

    def ready(self, mask: int) -> None:
        """Take the replies that have come, then publish as often."""
        super().ready(mask)
        if self.work.is_closed_loop:
            self.fill(now())

    def heard(self, heard: HeardMessage) -> None:
        """Take a reply."""
        asked = self.waiting.pop(heard.id, None)
        if asked is None:
            return
        if heard.op == "published":
            self.work.published(*asked)
        else:
            self.worker.errors[f"{heard.code} {heard.reason}"] += 1
            if heard.retry_after:
                self.work.rest(self, now() + int(heard.retry_after * 1e9))


class BeatingLink(SendingLink):
    """Sends heartbeats, and times their answers."""

    __slots__ = ("is_waiting", "work")

    def __init__(self, work: "HeartbeatLoad", number: int, topic: str | None) -> None:
        super().__init__(work.worker, number, topic)
        self.work = work
        self.is_waiting = False

    def send_one(self, due_ns: int) -> None:
        """Send a PING."""
        self.is_waiting = True
        self.beat(due_ns)

    def answered(self, stamp: int) -> None:
        """Time the answer."""
        self.is_waiting = False
        self.work.answered(self, stamp)
