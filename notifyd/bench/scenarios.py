"""What each scenario does with its links, and what it counts: one class for each kind of load."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from notifyd.bench.links import NOT_RECOVERED, LoadLink, now
from notifyd.bench.load import Scenario
from notifyd.bench.orders import LoadStep
from notifyd.bench.roles import BeatingLink, CountingLink, PublishingLink
from notifyd.bench.work import Sending, Work

if TYPE_CHECKING:
    from notifyd.bench.worker import LoadWorker

PACED_IN_FLIGHT = 1000
"""How many answers of a paced load a server may owe a publisher. Above it the schedule waits, and latencies tell."""

RETRY_NS = 60_000_000_000
"""How long a server that was ended may take to be back."""

BEATS_A_SECOND = 90
"""Of one link at most: a server takes 100 a second for a flood (spec/wire.md)."""

_BEAT_NS = 1_000_000_000 // BEATS_A_SECOND


class PublishLoad(Sending):
    """Publishers that wait for replies, each counted."""

    senders: Sequence[PublishingLink]

    def __init__(self, worker: "LoadWorker") -> None:
        super().__init__(worker)
        self.senders = [link for link in self.links if isinstance(link, PublishingLink)]
        self._resting: list[PublishingLink] = []

    def make_link(self, number: int) -> LoadLink:
        """Make one of the links."""
        return PublishingLink(self, number, [number % self.nature.topics])

    @property
    def all_publishers(self) -> int:
        """How many publishers there are in all processes."""
        return self.nature.connections

    @property
    def is_closed_loop(self) -> bool:
        """Whether a publisher publishes once more when it gets a reply."""
        return self.is_loading and self.schedule is None

    @property
    def in_flight(self) -> int:
        """How many answers may be owed to a publisher."""
        is_paced = self.plan.load.rate is not None and self.plan.load.in_flight is None
        return PACED_IN_FLIGHT if is_paced else self.nature.in_flight

    def load(self, now_ns: int) -> None:
        """Begin to send."""
        self.set_schedule(self.plan.load.rate, len(self.senders), self.all_publishers, now_ns)
        if self.schedule is None:
            self.fill_all(now_ns)

    def rest(self, publisher: PublishingLink, until_ns: int) -> None:
        """Have a publisher send nothing until then."""
        if not publisher.rests_until_ns:
            self._resting.append(publisher)
        publisher.rests_until_ns = max(until_ns, publisher.rests_until_ns)

    @property
    def next_ns(self) -> int | None:
        """When something is due, or a publisher has rested."""
        due = [publisher.rests_until_ns for publisher in self._resting]
        if (next_ns := super().next_ns) is not None:
            due.append(next_ns)
        return min(due, default=None)

    def advance(self, now_ns: int) -> None:
        """Do what is due, and wake those who have rested."""
        for publisher in [resting for resting in self._resting if resting.rests_until_ns <= now_ns]:
            self._resting.remove(publisher)
            publisher.rests_until_ns = 0
            if self.schedule is not None:
                self.schedule.is_held = False
            elif self.is_loading:
                self.worker.attempt(publisher, publisher.fill, now_ns)
        super().advance(now_ns)

    def fill_all(self, now_ns: int) -> None:
        """Have all publish what they may."""
        for publisher in self.senders:
            self.worker.attempt(publisher, publisher.fill, now_ns)

    @property
    def is_settled(self) -> bool:
        """Whether every answer that can come has come."""
        return not self.is_loading and not any(publisher.waiting for publisher in self.senders if publisher.is_open)

    def published(self, due_ns: int, topic: int) -> None:  # noqa: ARG002 - for who counts deliveries
        """Take note of a publish that was accepted."""
        self.count(due_ns)


class DeliveryLoad(PublishLoad):
    """Subscribers whose messages are counted, and publishers beside them."""

    def __init__(self, worker: "LoadWorker") -> None:
        super().__init__(worker)
        self.senders = [
            PublishingLink(self, self.nature.connections + number, self.topics_of(number))
            for number in self.plan.share(self.nature.publishers)
        ]
        self._subscribers = [self.plan.subscribers_of(topic) for topic in range(self.nature.topics)]
        self._arrived = 0
        self._arrived_before = 0

    def make_link(self, number: int) -> LoadLink:
        """Make one of the links."""
        return CountingLink(self.worker, number, self.topic_of(number))

    def topics_of(self, publisher: int) -> list[int]:
        """Return the topics of a publisher, in the order that it takes them."""
        count = self.nature.topics
        return [(publisher * count // self.nature.publishers + place) % count for place in range(count)]

    @property
    def all_publishers(self) -> int:
        """How many publishers there are in all processes."""
        return self.nature.publishers

    @property
    def operations(self) -> int:
        """What was counted since MEASURE."""
        return self.worker.arrivals.count - self._arrived_before

    def measure(self) -> None:
        """Count from here on."""
        super().measure()
        self._arrived_before = self.worker.arrivals.count

    def connect(self, now_ns: int) -> None:  # noqa: ARG002 - as in Sending
        """Open publishers and subscribers."""
        self.worker.open_all([*self.senders, *self.links])

    def published(self, due_ns: int, topic: int) -> None:  # noqa: ARG002 - deliveries are timed, not replies
        """Note how many deliveries are due for it."""
        self.expected += self._subscribers[topic]

    def advance(self, now_ns: int) -> None:
        """Do what is due."""
        super().advance(now_ns)
        if self._arrived != self.worker.arrivals.count:
            self._arrived, self.last_ns = self.worker.arrivals.count, now_ns


class RecoveryLoad(DeliveryLoad):
    """Subscribers that are cut, miss messages, and come back to get them."""

    def __init__(self, worker: "LoadWorker") -> None:
        super().__init__(worker)
        worker.arrivals.is_timing = False
        self._retries_until_ns = 0

    def topics_of(self, publisher: int) -> list[int]:
        """Return the topics that are this publisher's alone."""
        return list(range(publisher, self.nature.topics, self.nature.publishers))

    def may_open(self, opening: int, now_ns: int) -> int | None:
        """Let as many open at a time as in a connect storm."""
        return now_ns if opening < self.nature.in_flight else None

    @property
    def is_closed_loop(self) -> bool:
        """Whether a publisher publishes once more when it gets a reply."""
        return self.worker.step is LoadStep.MISS

    @property
    def operations(self) -> int:
        """What was counted since MEASURE."""
        return self._counted

    def miss(self) -> None:
        """Publish what the links that are away will have missed."""
        for publisher in self.senders:
            publisher.quota = self.plan.load.missed * len(publisher.topics)
        for link in self.links:
            assert isinstance(link, CountingLink)
            link.missing = self.plan.load.missed
        self.fill_all(now())

    @property
    def is_settled(self) -> bool:
        """Whether all links are cut, or every publish that can be answered has been."""
        if self.worker.step is LoadStep.CUT:
            return not any(link.is_open for link in self.links)
        open_ones = [publisher for publisher in self.senders if publisher.is_open]
        return not any(publisher.waiting or publisher.quota for publisher in open_ones)

    def begin(self, step: LoadStep, now_ns: int) -> None:
        """Begin a step; the links are not cut where the server is to do it."""
        self._retries_until_ns = now_ns + RETRY_NS
        if step is not LoadStep.CUT or self.plan.load.cut == "client":
            super().begin(step, now_ns)

    def was_meant(self, *, was_open: bool) -> bool:
        """Whether the server was to end it."""
        return was_open and self.worker.step is LoadStep.CUT

    def tries_again(self, kind: str) -> bool:
        """Whether the server may not be back yet."""
        is_recovering = self.worker.step is LoadStep.RECOVER and self.plan.load.cut == "server"
        return is_recovering and kind != NOT_RECOVERED and now() < self._retries_until_ns

    def opened(self, link: LoadLink) -> None:
        """Count it where it has missed nothing that is known of."""
        if self.worker.step is LoadStep.RECOVER and isinstance(link, CountingLink) and not link.missing:
            self.worker.made_whole(link)

    def made_whole(self, link: LoadLink) -> None:
        """Count it."""
        self.count(link.began_ns)


class HeartbeatLoad(Sending):
    """Links that send heartbeats: as fast as they are answered, or by a schedule."""

    senders: Sequence[BeatingLink]

    def __init__(self, worker: "LoadWorker") -> None:
        super().__init__(worker)
        self.senders = [link for link in self.links if isinstance(link, BeatingLink)]
        self._resting: deque[tuple[int, BeatingLink]] = deque()

    def make_link(self, number: int) -> LoadLink:
        """Make one of the links."""
        return BeatingLink(self, number, self.topic_of(number))

    def load(self, now_ns: int) -> None:
        """Begin to send."""
        rate, connections = self.plan.load.rate, self.nature.connections
        if rate is None and self.plan.load.scenario is Scenario.IDLE:
            rate = connections / self.plan.load.heartbeat_s
        self.set_schedule(rate, len(self.senders), connections, now_ns)
        if self.schedule is None:
            self._resting.extend((now_ns, beater) for beater in self.senders)

    @property
    def is_settled(self) -> bool:
        """Whether every answer that can come has come."""
        return not self.is_loading and not any(beater.is_waiting for beater in self.senders if beater.is_open)

    @property
    def next_ns(self) -> int | None:
        """When something is due."""
        if self.is_loading and self._resting:
            return self._resting[0][0]
        return super().next_ns

    def answered(self, beater: BeatingLink, stamp_ns: int) -> None:
        """Count a heartbeat that was answered, and send another when the link may."""
        self.count(stamp_ns)
        if self.schedule is None and self.is_loading:
            due_ns = stamp_ns + _BEAT_NS
            if due_ns > self.last_ns:
                self._resting.append((due_ns, beater))
            else:
                beater.send_one(self.last_ns)

    def advance(self, now_ns: int) -> None:
        """Do what is due."""
        super().advance(now_ns)
        while self.is_loading and self._resting and self._resting[0][0] <= now_ns:
            _, beater = self._resting.popleft()
            if beater.is_open:
                self.worker.attempt(beater, beater.send_one, now_ns)


_KINDS: dict[Scenario, type[Work]] = {
    Scenario.CONNECT: Work,
    Scenario.IDLE: HeartbeatLoad,
    Scenario.FANOUT: DeliveryLoad,
    Scenario.TOPICS: DeliveryLoad,
    Scenario.PUBLISH: PublishLoad,
    Scenario.HEARTBEATS: HeartbeatLoad,
    Scenario.RECOVERY: RecoveryLoad,
}


def work_of(worker: "LoadWorker") -> Work:
    """Make the work of a process's scenario."""
    return _KINDS[worker.plan.load.scenario](worker)
