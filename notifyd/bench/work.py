"""What the links of a load process do, and what is counted: what all scenarios share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from notifyd.bench.links import LoadLink, now
from notifyd.bench.orders import LoadStep
from notifyd.bench.pacing import Schedule
from notifyd.bench.roles import CountingLink, SendingLink

if TYPE_CHECKING:
    from notifyd.bench.worker import LoadWorker

CONNECTS_AT_ONCE = 64
"""Of one process, where connecting is not what is measured."""


class Work:
    """What all scenarios share; on its own it is the connect storm.

    `expected` are the deliveries that accepted publishes are due; `sent` counts what a schedule had begun.
    """

    def __init__(self, worker: "LoadWorker") -> None:
        self.worker = worker
        self.plan = worker.plan
        self.nature = worker.plan.load.nature
        self.links: Sequence[LoadLink] = [self.make_link(number) for number in self.plan.share(self.nature.connections)]
        self.schedule: Schedule | None = None
        self.is_measuring = False
        self.is_loading = False
        self.expected = 0
        self.sent = 0
        self.last_ns = 0
        self._counted = 0

    def make_link(self, number: int) -> LoadLink:
        """Make one of the links."""
        return CountingLink(self.worker, number, self.topic_of(number))

    def topic_of(self, number: int) -> str | None:
        """Name the topic of a link."""
        return self.plan.topic(number % self.nature.topics) if self.nature.topics else None

    # --- counts -------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> int:
        """What was counted since MEASURE."""
        return self._counted

    def count(self, due_ns: int) -> None:
        """Count an operation that was due, or sent, at this time."""
        self.last_ns = now()
        self._counted += 1
        self.worker.arrivals.histogram.add(self.last_ns - due_ns)

    def measure(self) -> None:
        """Count from here on."""
        self.is_measuring = True
        self._counted = self.sent = 0
        if self.schedule is not None:
            self.schedule.late = 0
        self.worker.forget_latencies()

    # --- steps --------------------------------------------------------------------------------------------------------

    def begin(self, step: LoadStep, now_ns: int) -> None:
        """Begin a step."""
        match step:
            case LoadStep.CONNECT:
                self.connect(now_ns)
            case LoadStep.LOAD:
                self.is_loading = True
                self.load(now_ns)
            case LoadStep.MEASURE:
                self.measure()
            case LoadStep.QUIET:
                self.is_loading = False
            case LoadStep.CUT:
                self.worker.cut(self.links)
            case LoadStep.MISS:
                self.miss()
            case LoadStep.RECOVER:
                self.worker.open_all(self.links)

    def connect(self, now_ns: int) -> None:
        """Open all links; in the connect storm at the rate, where there is one."""
        self.set_schedule(self.plan.load.rate, len(self.links), self.nature.connections, now_ns)
        self.worker.open_all(self.links)

    def load(self, now_ns: int) -> None:
        """Begin what is measured."""

    def miss(self) -> None:
        """Publish what the links that are away will have missed."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is waited for that the last step is about, links that open apart."""
        return not self.is_loading

    def set_schedule(self, rate: float | None, senders: int, of_all: int, now_ns: int) -> None:
        """Make this process's part of a schedule: its senders' of all. The processes take turns."""
        if rate is not None and senders:
            self.schedule = Schedule(rate * senders / of_all, now_ns + int(self.plan.number * 1e9 / rate))

    # --- the loop -----------------------------------------------------------------------------------------------------

    @property
    def next_ns(self) -> int | None:
        """When something is due by the schedule; None while nothing is, or can be sent."""
        return self.schedule.next_ns if self.schedule is not None and self.worker.is_opening else None

    def advance(self, now_ns: int) -> None:
        """Do what is due."""

    def may_open(self, opening: int, now_ns: int) -> int | None:
        """Return what the time of another link counts from, None where it is to wait."""
        if self.schedule is None:
            return now_ns if opening < self.nature.in_flight else None
        if self.schedule.next_ns > now_ns:
            return None
        self.sent += 1
        return self.schedule.take(now_ns)

    def was_meant(self, *, was_open: bool) -> bool:  # noqa: ARG002 - for the scenario that loses its links
        """Whether the end of a link is no error."""
        return False

    def tries_again(self, kind: str) -> bool:  # noqa: ARG002 - likewise
        """Whether a link that could not be opened, for this reason, is opened again at the next tick."""
        return False

    def opened(self, link: LoadLink) -> None:
        """Take note of a link that is open."""
        self.count(link.began_ns)

    def made_whole(self, link: LoadLink) -> None:
        """Take note of a link that has what it missed."""


class Sending(Work):
    """Links that are opened first, and then senders that send in turn."""

    senders: Sequence[SendingLink]
    _turn = 0

    def connect(self, now_ns: int) -> None:  # noqa: ARG002 - these are not opened at the rate
        """Open all links, so many at a time."""
        self.worker.open_all(self.links)

    def may_open(self, opening: int, now_ns: int) -> int | None:
        """Let so many open at a time."""
        return now_ns if opening < CONNECTS_AT_ONCE else None

    def opened(self, link: LoadLink) -> None:
        """Count nothing yet."""

    def next_sender(self) -> SendingLink | None:
        """Return whose turn it is, None where all wait for answers."""
        for _ in self.senders:
            self._turn = (self._turn + 1) % len(self.senders)
            if self.senders[self._turn].has_room:
                return self.senders[self._turn]
        return None

    @property
    def next_ns(self) -> int | None:
        """When the next is to send."""
        schedule = self.schedule
        return None if schedule is None or schedule.is_held or not self.is_loading else schedule.next_ns

    def advance(self, now_ns: int) -> None:
        """Send what is due."""
        schedule = self.schedule
        if schedule is None or not self.is_loading:
            return
        while schedule.next_ns <= now_ns:
            sender = self.next_sender()
            if sender is None:
                schedule.hold()
                return
            self.sent += 1
            self.worker.attempt(sender, sender.send_one, schedule.take(now_ns))
        schedule.release()
