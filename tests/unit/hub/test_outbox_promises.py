"""What an outbox promises whatever is done with it: whole frames in order, nothing lost untold, a budget kept.

Hypothesis does anything in any order: messages of several topics and policies, with and without positions, replies, a
socket that takes any number of bytes at any moment, drains that are cancelled. The model knows only what was put.
"""

from collections import defaultdict
from itertools import pairwise

import hypothesis.strategies as st
import trio
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from notifyd.hub.backlog import GAP_BYTES, Backlog, Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.fanout import flush_all, hand_all
from notifyd.settings import Overflow
from protocol.framing import Form
from protocol.position import Position
from tests.kit.frames import FrameReader
from tests.kit.scripted_sink import EPOCH, ScriptedSink, make_delivery, make_outbox

POLICIES = {
    "gap:a": Overflow.GAP,
    "gap:b": Overflow.GAP,
    "oldest:a": Overflow.DROP_OLDEST,
    "oldest:b": Overflow.DROP_OLDEST,
    "latest:a": Overflow.LATEST,
    "latest:b": Overflow.LATEST,
    "unnumbered:a": Overflow.GAP,
    "unnumbered:b": Overflow.LATEST,
}
TOPICS = st.sampled_from(sorted(POLICIES))
SIZES = st.one_of(st.integers(0, 200), st.integers(0, 3000))


class OutboxPromises(RuleBasedStateMachine):
    @initialize(form=st.sampled_from(Form), budget=st.sampled_from([2000, 5000, 20_000]), room=st.integers(0, 5000))
    def open(self, form: Form, budget: int, room: int) -> None:
        self.form, self.budget = form, budget
        self.sink = ScriptedSink(room)
        self.outbox = make_outbox(self.sink, form, budget)
        self.newest: dict[str, int] = defaultdict(int)
        self.replies = 0
        self.disconnected = False
        self.largest = 0
        self.reader = FrameReader(form)
        self.reached: dict[str, int] = defaultdict(int)

    # --- what is done with it -----------------------------------------------------------------------------------------

    @rule(topic=TOPICS, size=SIZES, count=st.integers(1, 12), as_fanout=st.booleans())
    def put(self, topic: str, size: int, count: int, as_fanout: bool) -> None:
        for _ in range(count):
            self.newest[topic] += 1
            numbered = not topic.startswith("unnumbered")
            delivery = make_delivery(
                topic, self.newest[topic] if numbered else None, size=size, overflow=POLICIES[topic]
            )
            self.largest = max(self.largest, len(delivery.frame(self.form)))
            if as_fanout:
                hand_all([self.outbox], delivery)
                continue
            self.outbox._settle()
            before = self.outbox.calls.overflows.total()
            fits = self.audit() + len(delivery.frame(self.form)) <= self.budget
            self.outbox.put(delivery)
            if fits:
                assert self.outbox.calls.overflows.total() == before, "there was room"

    @rule(size=st.integers(0, 500))
    def reply(self, size: int) -> None:
        frame = make_delivery("own", self.replies + 1, size=size).frame(self.form)
        overflows = self.outbox.calls.overflows[Overflow.DISCONNECT]
        self.outbox.put_frame(frame)
        if not self.disconnected and self.outbox.calls.overflows[Overflow.DISCONNECT] == overflows:
            self.replies += 1
        self.disconnected = self.outbox.calls.overflows[Overflow.DISCONNECT] > 0

    @rule(topic=st.sampled_from(["gap:a", "oldest:a", "latest:a"]), count=st.integers(1, 9))
    def tell_gap(self, topic: str, count: int) -> None:
        first = self.newest[topic] + 1
        self.newest[topic] += count
        self.outbox.put_gap(Lost(topic, Position(EPOCH, first), last=first + count - 1, reason="expired"))

    @rule(as_fanout=st.booleans())
    def flush(self, as_fanout: bool) -> None:
        if as_fanout:
            flush_all([self.outbox])
        else:
            self.outbox.flush()

    @rule(room=st.one_of(st.integers(1, 100), st.integers(1, 100_000)), seconds=st.sampled_from([0, 5]))
    def make_room_and_drain_for_a_while(self, room: int, seconds: int) -> None:
        self.sink.allow(room)
        trio.run(self.drain_for, seconds, clock=MockClock(autojump_threshold=0))

    @rule(sends=st.integers(1, 4))
    def hold_ciphertext(self, sends: int) -> None:
        self.sink.holds = sends

    async def drain_for(self, seconds: float) -> None:
        self.outbox._drained = None  # events do not outlive a run of Trio
        with trio.move_on_after(seconds):
            await self.outbox.drain(10)

    # --- what holds all the time --------------------------------------------------------------------------------------

    def audit(self) -> int:
        """Count anew what waits."""
        waiting = [*self.outbox._queue]
        for backlog in [item for item in waiting if isinstance(item, Backlog)]:
            waiting += backlog.items
            sizes = [len(item.frame(self.form)) for item in backlog.items if isinstance(item, Delivery)]
            assert backlog.message_bytes == sum(sizes)
            assert backlog.items, "a backlog without anything has no place"
            gaps = [isinstance(item, Lost) and item.reason == "slow" for item in backlog.items]
            assert not any(map(all, pairwise(gaps))), "neighbours are told as one"
        sizes = [GAP_BYTES if isinstance(item, Lost) else self.size_of(item) for item in waiting]
        return len(self.outbox._remainder or b"") + sum(sizes)

    def size_of(self, item: object) -> int:
        if isinstance(item, Backlog):
            return 0
        return len(item if isinstance(item, bytes) else item.frame(self.form))

    @precondition(lambda self: hasattr(self, "outbox"))
    @invariant()
    def what_is_counted_is_what_waits(self) -> None:
        assert self.outbox.queued_bytes == self.audit()

    @precondition(lambda self: hasattr(self, "outbox"))
    @invariant()
    def the_budget_is_kept(self) -> None:
        gaps = sum(isinstance(item, Lost) and item.reason == "expired" for item in self.outbox._waiting())
        assert self.outbox.queued_bytes <= max(self.budget, self.largest) + GAP_BYTES * (len(POLICIES) + 2 * gaps)

    @precondition(lambda self: hasattr(self, "outbox"))
    @invariant()
    def what_is_unsent_is_told(self) -> None:
        """Whole frames that the sink has, and what `first_unsent` says, leave nothing between them."""
        unsent = self.outbox.first_unsent()
        self.follow()
        for topic, newest in self.newest.items():
            if not topic.startswith("unnumbered"):
                reached = self.reached[topic]
                assert unsent[topic].offset <= reached + 1 if topic in unsent else reached == newest

    def follow(self) -> None:
        """Follow what left: of no topic anything is missing, doubled or out of order."""
        self.reader.receive(bytes(self.sink.taken))
        self.sink.taken.clear()
        for message in self.reader.frames:
            topic, gap = message["topic"], message["op"] == "gap"
            if topic.startswith("unnumbered"):
                continue
            first, last = (message["from"], message["to"]) if gap else (message["offset"],) * 2
            assert first == self.reached[topic] + 1, f"{topic}: {first} after {self.reached[topic]}"
            assert last >= first
            self.reached[topic] = last
        self.reader.frames.clear()

    def teardown(self) -> None:
        if not hasattr(self, "outbox"):
            return
        self.sink.allow(10**9)
        self.outbox.flush()
        trio.run(self.drain_for, 10, clock=MockClock(autojump_threshold=0))
        assert self.outbox.queued_bytes == 0
        assert self.outbox._backlogs is None
        assert not self.outbox.first_unsent() or self.disconnected
        self.follow()
        assert not self.reader.rest, "the stream ends inside a frame"
        assert self.reached["own"] == self.replies
        if not self.disconnected:
            for topic, newest in self.newest.items():
                if not topic.startswith("unnumbered"):
                    assert self.reached[topic] == newest


TestOutboxPromises = OutboxPromises.TestCase
