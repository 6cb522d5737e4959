"""The order of what arrives: case by case, then whatever happens to connection and history."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.broker.base import Loss, Page, Retention
from notifyd.broker.redis import ordering
from notifyd.broker.redis.envelope import Arrived
from notifyd.broker.redis.ordering import MOST_HELD, REPAIR_PAGE_MESSAGES, Ordering
from notifyd.errors import BrokerUnavailable
from notifyd.model import Notification
from protocol.messages import Since
from protocol.position import Position
from tests.kit.memory_node import run_virtual
from tests.recorded_events import RecordedEvents
from tests.unit.broker.conformance import Received

TOPIC = "a:b"
KEEP = Retention(1000, 60.0)


@dataclass
class History:
    """A topic's history as Redis would have it; `values` are those of offsets `trimmed + 1` and on.

    `given` has the position under which each value was published, whatever became of it.
    """

    epoch: str = "e1"
    base: int = 0
    trimmed: int = 0
    values: list[int] = field(default_factory=list)
    published: int = 0
    given: dict[int, Position] = field(default_factory=dict)
    failures: int = 0
    reads: int = 0

    @property
    def top(self) -> int:
        return self.trimmed + len(self.values)

    def notification(self, offset: int) -> Notification:
        return Notification(TOPIC, self.values[offset - self.trimmed - 1], 0, Position(self.epoch, offset))

    def publish(self) -> Arrived:
        self.published += 1
        self.values.append(self.published)
        self.given[self.published] = Position(self.epoch, self.top)
        return Arrived(self.notification(self.top), "n", self.published)

    def trim(self, count: int) -> None:
        count = min(count, len(self.values))
        del self.values[:count]
        self.trimmed += count

    def lose_newest(self, count: int, *, noticed: bool) -> None:
        """Go back in time, as after a failover; noticed, a new epoch begins with that."""
        count = min(count, len(self.values))
        del self.values[len(self.values) - count :]
        if noticed:
            self.begin_epoch()

    def begin_epoch(self) -> None:
        self.epoch, self.base = f"e{int(self.epoch[1:]) + 1}", self.top

    async def read(self, topic: str, since: Since, limit: int, retention: Retention) -> Page:
        assert (topic, retention) == (TOPIC, KEEP)
        self.reads += 1
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away", retry_after_s=0.5)
        page = self._page(since, limit)
        await trio.lowlevel.checkpoint()
        return page

    def _page(self, since: Since, limit: int) -> Page:
        top, continuous = Position(self.epoch, self.top), True
        if since == "earliest":
            after, continuous = self.trimmed, self.trimmed <= self.base
        elif isinstance(since, Position) and since.epoch == self.epoch and self.trimmed <= since.offset <= self.top:
            after = since.offset
        else:
            return Page([], top, continuous=False, more=False, base=self.base)
        last = min(after + limit, self.top)
        messages = [self.notification(offset) for offset in range(after + 1, last + 1)]
        return Page(messages, top, continuous, more=last < self.top, base=self.base)

    async def renew(self, topic: str, given: Position) -> None:
        assert topic == TOPIC
        await trio.lowlevel.checkpoint()
        if given.epoch == self.epoch and given.offset > self.top:
            self.begin_epoch()


class Told(Received):
    """What the hub is told, in one list: values of messages, and losses."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Any] = []

    def deliver(self, batch: Any) -> None:
        super().deliver(batch)
        self.all += [notification.data for notification in batch]

    def lose(self, loss: Loss) -> None:
        super().lose(loss)
        self.all.append((loss.first.offset, loss.last, loss.reason))


@dataclass
class Table:
    ordering: Ordering
    history: History
    told: Told
    events: RecordedEvents

    def arrive(self, *arrivals: Arrived) -> None:
        self.ordering.take(arrivals)


@asynccontextmanager
async def open_table(published: int = 0) -> AsyncIterator[Table]:
    """An ordering that follows one topic from its newest message on, and repairs."""
    history, told, events = History(), Told(), RecordedEvents()
    for _ in range(published):
        history.publish()
    table = Table(Ordering(told, history.read, history.renew, events), history, told, events)
    table.ordering.follow(TOPIC, KEEP)
    table.ordering.note_top(TOPIC, Position(history.epoch, history.top))
    async with trio.open_nursery() as nursery:
        await nursery.start(table.ordering.run)
        yield table
        nursery.cancel_scope.cancel()


async def test_what_comes_in_order_is_handed_on_at_once() -> None:
    async with open_table() as table:
        table.arrive(*[table.history.publish() for _ in range(5)])
        assert table.told.all == [1, 2, 3, 4, 5]
        assert table.history.reads == 0


async def test_what_came_before_is_dropped() -> None:
    async with open_table() as table:
        first, second = table.history.publish(), table.history.publish()
        table.arrive(first, second, first, second)
        assert table.told.all == [1, 2]
        assert table.events.counted("duplicates_dropped") == 2


async def test_a_hole_is_filled_from_the_history_before_anything_behind_it() -> None:
    async with open_table() as table:
        arrivals = [table.history.publish() for _ in range(5)]
        table.arrive(arrivals[0], arrivals[3])
        assert table.told.all == [1]
        table.arrive(arrivals[4])
        await wait_all_tasks_blocked()
        assert table.told.all == [1, 2, 3, 4, 5]


async def test_out_of_order_is_put_right() -> None:
    async with open_table() as table:
        first, second, third = (table.history.publish() for _ in range(3))
        table.arrive(first, third, second)
        await wait_all_tasks_blocked()
        assert table.told.all == [1, 2, 3]


async def test_a_long_hole_is_read_in_pages() -> None:
    async with open_table() as table:
        arrivals = [table.history.publish() for _ in range(3 * REPAIR_PAGE_MESSAGES)]
        table.arrive(arrivals[-1])
        await wait_all_tasks_blocked()
        assert table.told.all == [*range(1, 3 * REPAIR_PAGE_MESSAGES + 1)]
        assert table.history.reads == 3


async def test_after_a_reconnect_what_was_missed_is_read_though_nothing_arrives() -> None:
    async with open_table() as table:
        table.arrive(table.history.publish())
        table.history.publish()
        table.ordering.recheck([TOPIC, "not:followed"])
        await wait_all_tasks_blocked()
        assert table.told.all == [1, 2]


async def test_a_reconnect_before_the_first_position_is_known_is_made_up_for() -> None:
    async with open_table() as table:
        table.ordering.forget(TOPIC)
        table.ordering.follow(TOPIC, KEEP)
        told = Position(table.history.epoch, 0)  # a subscriber's read, answered before ...
        table.history.publish()  # ... a message that the lost connection did not bring
        table.ordering.recheck([TOPIC])
        await wait_all_tasks_blocked()
        assert table.told.all == []
        table.ordering.note_top(TOPIC, told)
        await wait_all_tasks_blocked()
        assert table.told.all == [1]


async def test_what_arrives_before_the_first_position_is_known_waits_for_it_after_a_reconnect() -> None:
    async with open_table() as table:
        table.ordering.forget(TOPIC)
        table.ordering.follow(TOPIC, KEEP)
        told = Position(table.history.epoch, 0)
        table.ordering.recheck([TOPIC])
        table.history.publish()
        table.arrive(table.history.publish())
        await wait_all_tasks_blocked()
        assert table.told.all == []
        table.ordering.note_top(TOPIC, told)
        await wait_all_tasks_blocked()
        assert table.told.all == [1, 2]


async def test_what_the_history_has_no_more_is_told() -> None:
    async with open_table() as table:
        table.arrive(table.history.publish())
        arrivals = [table.history.publish() for _ in range(4)]
        table.history.trim(3)
        table.arrive(arrivals[-1])
        await wait_all_tasks_blocked()
        assert table.told.all == [1, (2, 3, "expired"), 4, 5]


async def test_of_a_new_epoch_everything_is_handed_on_behind_a_gap() -> None:
    async with open_table(published=3) as table:
        table.history.lose_newest(1, noticed=True)
        table.history.publish()
        table.arrive(table.history.publish())
        await wait_all_tasks_blocked()
        assert table.told.all == [(1, 2, "epoch"), 4, 5]


async def test_a_history_that_began_from_nothing_is_told_too() -> None:
    async with open_table(published=3) as table:
        table.history.values.clear()
        table.history.begin_epoch()
        table.history.base = table.history.trimmed = 0
        table.arrive(table.history.publish())
        await wait_all_tasks_blocked()
        assert table.told.all == [(0, 0, "epoch"), 4]


async def test_a_history_that_went_back_begins_a_new_epoch() -> None:
    async with open_table(published=3) as table:
        table.history.lose_newest(2, noticed=False)
        table.ordering.recheck([TOPIC])
        await wait_all_tasks_blocked()
        assert table.history.epoch == "e2"
        table.arrive(table.history.publish())
        assert table.told.all == [(1, 1, "epoch"), 4]


async def test_while_the_broker_is_away_a_hole_waits_for_it(autojump_clock: MockClock) -> None:
    async with open_table() as table:
        table.history.failures = 30
        table.history.publish()
        table.arrive(table.history.publish())
        await trio.sleep(9)
        assert table.told.all == []
        assert table.history.reads < 25
        await trio.sleep(10)
        assert table.told.all == [1, 2]


async def test_a_hole_that_the_history_denies_is_told_in_the_end(autojump_clock: MockClock) -> None:
    async with open_table() as table:
        table.arrive(Arrived(Notification(TOPIC, "far", 0, Position("e1", 5)), "n", 1))
        await trio.sleep(ordering.FRUITLESS_PAUSE_S * (ordering.FRUITLESS_REPAIRS + 1))
        assert table.told.all == [(1, 4, "expired"), "far", (0, 0, "epoch")]
        table.arrive(table.history.publish())
        assert table.told.all[-1] == 1


async def test_no_more_is_held_than_the_bound(autojump_clock: MockClock) -> None:
    async with open_table() as table:
        table.history.failures = 1
        arrivals = [table.history.publish() for _ in range(3 * MOST_HELD)]
        for arrival in arrivals[1:]:
            table.arrive(arrival)
            held = table.ordering._tracks[TOPIC].held
            assert held is not None
            assert len(held) <= MOST_HELD
        await trio.sleep(1)
        assert table.told.all == [*range(1, 3 * MOST_HELD + 1)]


async def test_forgotten_in_the_middle_of_a_repair_nothing_more_comes() -> None:
    async with open_table() as table:
        table.history.publish()
        table.arrive(table.history.publish())
        await trio.lowlevel.checkpoint()
        table.ordering.forget(TOPIC)
        await wait_all_tasks_blocked()
        assert table.told.all == []
        assert len(table.ordering) == 0


async def test_without_position_repeats_are_told_by_sender_and_sequence() -> None:
    async with open_table() as table:

        def arrived(node: str, sequence: int) -> Arrived:
            return Arrived(Notification(TOPIC, f"{node}{sequence}", 0), node, sequence)

        table.arrive(arrived("x", 1), arrived("y", 1), arrived("x", 1))
        table.arrive(arrived("x", 3), arrived("x", 2), arrived("y", 1))
        assert table.told.all == ["x1", "y1", "x3", "x2"]


async def test_the_echo_of_what_was_delivered_here_is_a_repeat() -> None:
    async with open_table() as table:
        notification = Notification(TOPIC, "here", 0)
        table.ordering.deliver_here(notification, "n", 7)
        table.arrive(Arrived(notification, "n", 7))
        table.ordering.deliver_here(Notification("not:followed", "nobody's", 0), "n", 8)
        assert table.told.all == ["here"]


# --- whatever happens ------------------------------------------------------------------------------------------------

_steps = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(["arrives", "is lost", "comes late", "comes twice"])),
    st.tuples(st.just("late"), st.integers(0, 5)),
    st.tuples(st.just("trim"), st.integers(1, 3)),
    st.tuples(st.just("fail"), st.integers(1, 3)),
    st.tuples(st.just("failover"), st.integers(0, 3)),
    st.tuples(st.just("recheck"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 1.0])),
)


class Life:
    """What happens to a table, and the messages still on their way."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.late: list[Arrived] = []


async def _publish(life: Life, how: str) -> None:
    arrived = life.table.history.publish()
    if how in {"arrives", "comes twice"}:
        life.table.arrive(arrived)
    if how in {"comes late", "comes twice"}:
        life.late.append(arrived)


async def _late(life: Life, which: int) -> None:
    if life.late:
        life.table.arrive(life.late.pop(which % len(life.late)))


async def _trim(life: Life, count: int) -> None:
    life.table.history.trim(count)


async def _fail(life: Life, times: int) -> None:
    life.table.history.failures += times


async def _failover(life: Life, lost: int) -> None:
    history = life.table.history
    history.lose_newest(lost, noticed=True)
    life.late.clear()  # the connection that would bring them is gone
    life.table.ordering.recheck([TOPIC])


async def _recheck(life: Life, _: int) -> None:
    life.table.ordering.recheck([TOPIC])


async def _wait(life: Life, seconds: float) -> None:
    await trio.sleep(seconds)


PLAYS: dict[str, Callable[[Life, Any], Awaitable[None]]] = {
    "publish": _publish,
    "late": _late,
    "trim": _trim,
    "fail": _fail,
    "failover": _failover,
    "recheck": _recheck,
    "wait": _wait,
}


def judge(told: Told, history: History) -> None:
    """Each message once and in order; what is missing stands in a loss, or its epoch was told to be over."""
    values = [one for one in told.all if not isinstance(one, tuple)]
    assert values == sorted(set(values)), "doubled, or out of order"
    kept = {
        history.notification(offset).data for offset in range(max(history.base, history.trimmed) + 1, history.top + 1)
    }
    missing = history.given.keys() - set(values)
    assert not missing & kept, "what the history still has was not handed on"
    untold = [value for value in missing if not any(tells_of(loss, history.given[value]) for loss in told.lost)]
    assert not untold, "something is missing and nothing tells it"


def tells_of(loss: Loss, given: Position) -> bool:
    """Whether a loss has this position in its range, or tells that another epoch has begun since."""
    if loss.first.epoch == given.epoch:
        return loss.first.offset <= given.offset <= loss.last
    return loss.reason == "epoch" and int(loss.first.epoch[1:]) > int(given.epoch[1:])


def expiring(trimmed: int) -> list[tuple[str, Any]]:
    """Publish two messages that do not arrive; of them and those before, let so many expire before they are read."""
    return [("publish", "is lost"), ("publish", "is lost"), ("trim", trimmed), ("recheck", 0), ("wait", 1.0)]


@given(steps=st.lists(_steps, max_size=40))
@example(steps=[*expiring(1), *expiring(2)])
@example(steps=[*expiring(1), ("failover", 1), *expiring(2), *expiring(2)])
def test_whatever_happens_everything_comes_once_in_order_or_is_told(steps: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        async with open_table() as table:
            life = Life(table)
            for kind, how in steps:
                await PLAYS[kind](life, how)
            table.history.failures = 0
            table.ordering.recheck([TOPIC])
            await trio.sleep(60)
            judge(table.told, table.history)
            assert table.ordering._tracks[TOPIC].held is None
            assert table.ordering._tracks[TOPIC].position == Position(table.history.epoch, table.history.top)
            table.arrive(table.history.publish())
            assert table.told.all[-1] == table.history.published

    run_virtual(main)
