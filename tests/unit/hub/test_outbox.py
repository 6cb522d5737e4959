"""The outbox, case by case. That no interleaving loses or doubles anything is in test_outbox_promises.py."""

import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

from notifyd.errors import StreamBroken
from notifyd.hub.backlog import GAP_BYTES, Lost
from notifyd.hub.outbox import JOINED_BYTES
from notifyd.settings import Overflow
from protocol.framing import Form
from protocol.position import Position
from tests.kit.frames import read_frames
from tests.kit.scripted_sink import EPOCH, ScriptedSink, make_delivery, make_outbox

FORMS = pytest.mark.parametrize("form", list(Form), ids=lambda form: form.name)


def offsets(sink: ScriptedSink, form: Form = Form.DEVICE_JSON, topic: str = "a:b") -> list[object]:
    """What the peer knows of a topic: offsets, and gaps as pairs."""
    messages = [message for message in read_frames(form, bytes(sink.taken)) if message["topic"] == topic]
    return [(one["from"], one["to"]) if one["op"] == "gap" else one["offset"] for one in messages]


@FORMS
def test_what_is_put_together_leaves_in_one_send(form: Form) -> None:
    sink = ScriptedSink()
    outbox = make_outbox(sink, form, 10_000)
    for offset in (1, 2, 3):
        outbox.put(make_delivery(offset=offset))
    outbox.put_frame(make_delivery("own").frame(form))
    assert not sink.sends
    outbox.flush()
    assert len(sink.sends) == 1
    assert [message["offset"] for message in read_frames(form, bytes(sink.taken))] == [1, 2, 3, 1]
    assert outbox.queued_bytes == 0
    assert not outbox.calls.blocked


def test_an_empty_outbox_sends_nothing() -> None:
    sink = ScriptedSink()
    make_outbox(sink).flush()
    assert not sink.sends


def test_much_leaves_in_writes_of_a_bounded_size() -> None:
    sink = ScriptedSink()
    outbox = make_outbox(sink, budget_bytes=10**6)
    for offset in range(1, 21):
        outbox.put(make_delivery(offset=offset, size=10_000))
    outbox.flush()
    assert max(sink.sends) <= JOINED_BYTES + 11_000
    assert len(sink.sends) == 3
    assert offsets(sink) == list(range(1, 21))
    assert outbox.queued_bytes == 0


async def test_a_socket_that_would_block_gets_one_writer_which_goes_on_in_the_middle_of_the_frame() -> None:
    sink = ScriptedSink(30)
    outbox = make_outbox(sink)
    outbox.put(make_delivery(offset=1))
    outbox.flush()
    outbox.put(make_delivery(offset=2))
    outbox.flush()
    assert outbox.calls.blocked == 1
    assert outbox.is_blocked
    assert len(sink.taken) == 30
    sink.allow(10**6)
    await outbox.drain(1)
    assert offsets(sink) == [1, 2]
    assert outbox.queued_bytes == 0
    assert not outbox.is_blocked
    assert outbox.calls.blocked == 1


async def test_a_cancelled_drain_is_taken_up_where_it_stopped(autojump_clock: trio.testing.MockClock) -> None:
    sink = ScriptedSink(5)
    outbox = make_outbox(sink)
    outbox.put(make_delivery(offset=1))
    outbox.put(make_delivery(offset=2))
    outbox.flush()
    for _ in range(200):
        with trio.move_on_after(1):
            await outbox.drain(10)
        sink.allow(1)
    sink.allow(10**6)
    await outbox.drain(10)
    assert offsets(sink) == [1, 2]
    assert outbox.queued_bytes == 0


async def test_a_drain_gives_up_when_nothing_moves_and_only_then(autojump_clock: trio.testing.MockClock) -> None:
    sink = ScriptedSink(0)
    outbox = make_outbox(sink)
    outbox.put(make_delivery())
    outbox.flush()

    async def trickle() -> None:
        for _ in range(5):
            await trio.sleep(9)
            sink.allow(1)

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with pytest.raises(trio.TooSlowError):
            await outbox.drain(10)
    assert trio.current_time() - began_s == 5 * 9 + 10
    assert outbox.is_blocked


async def test_a_drain_of_what_is_not_blocked_returns() -> None:
    await make_outbox(ScriptedSink()).drain(1)


async def test_bytes_held_by_tls_are_unsent_though_all_were_taken() -> None:
    sink = ScriptedSink()
    sink.holds = 2
    outbox = make_outbox(sink)
    outbox.put(make_delivery(offset=1))
    outbox.flush()
    assert outbox.is_blocked
    assert outbox.queued_bytes == 0
    assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1)}
    await outbox.drain(1)
    assert not outbox.is_blocked
    assert outbox.first_unsent() == {}


class TestWaiting:
    async def test_until_all_has_left(self) -> None:
        sink = ScriptedSink(1)
        outbox = make_outbox(sink)
        outbox.put(make_delivery())
        outbox.flush()
        drained = []

        async def wait() -> None:
            await outbox.wait_drained()
            drained.append(outbox.queued_bytes)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            nursery.start_soon(outbox.drain, 10)
            await trio.testing.wait_all_tasks_blocked()
            assert not drained
            sink.allow(10_000)
        assert drained == [0, 0]

    async def test_where_nothing_waits_is_a_checkpoint(self) -> None:
        with trio.testing.assert_checkpoints():
            await make_outbox(ScriptedSink()).wait_drained()

    async def test_ends_when_the_socket_breaks(self) -> None:
        sink = ScriptedSink(1)
        outbox = make_outbox(sink)
        outbox.put(make_delivery())
        outbox.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.wait_drained)
            await trio.testing.wait_all_tasks_blocked()
            sink.break_off()
            with pytest.raises(StreamBroken):
                await outbox.drain(10)


class TestBroken:
    def broken(self, queued: int) -> tuple[ScriptedSink, object]:
        sink = ScriptedSink()
        outbox = make_outbox(sink, budget_bytes=10_000)
        for offset in range(1, queued + 1):
            outbox.put(make_delivery(offset=offset))
        sink.break_off()
        outbox.flush()
        return sink, outbox

    def test_nothing_is_counted_and_nothing_more_is_taken(self) -> None:
        _, outbox = self.broken(3)
        outbox.put(make_delivery(offset=4))
        outbox.put_frame(b"frame")
        outbox.put_gap(Lost("a:b", Position(EPOCH, 9)))
        outbox.flush()
        assert outbox.queued_bytes == 0
        assert not outbox.is_blocked
        assert outbox.calls.broken == 1
        assert not outbox.calls.overflows

    def test_what_waited_and_what_comes_is_unsent(self) -> None:
        _, outbox = self.broken(3)
        outbox.put(make_delivery("c:d", offset=7))
        outbox.put(make_delivery("c:d", offset=8))
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1), "c:d": Position(EPOCH, 7)}

    def test_a_put_that_finds_it_broken_is_unsent_too(self) -> None:
        sink = ScriptedSink()
        outbox = make_outbox(sink, budget_bytes=200)
        outbox.put(make_delivery(offset=1))
        sink.break_off()
        outbox.put(make_delivery(offset=2, overflow=Overflow.GAP))  # has to send first to make room
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1)}
        assert outbox.queued_bytes == 0
        outbox.put(make_delivery("c:d", offset=None))
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1)}

    def test_closing_a_broken_one_is_harmless(self) -> None:
        _, outbox = self.broken(1)
        outbox.close(b"last", discard=False)
        assert outbox.queued_bytes == 0

    async def test_while_draining(self) -> None:
        sink = ScriptedSink(10)
        outbox = make_outbox(sink)
        outbox.put(make_delivery(offset=1))
        outbox.flush()
        outbox.put(make_delivery(offset=2))
        sink.break_off()
        with pytest.raises(StreamBroken):
            await outbox.drain(10)
        assert outbox.queued_bytes == 0
        assert outbox.calls.broken == 1
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1)}


class TestClosing:
    def test_sends_what_waits_and_the_last_frame(self) -> None:
        sink = ScriptedSink()
        outbox = make_outbox(sink)
        outbox.put(make_delivery(offset=1))
        outbox.close(make_delivery(offset=2).frame(Form.DEVICE_JSON), discard=False)
        outbox.put(make_delivery(offset=3))
        outbox.put_frame(b"frame")
        outbox.flush()
        assert offsets(sink) == [1, 2]
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 3)}
        assert outbox.queued_bytes == 0

    async def test_can_discard_what_waits_but_not_the_rest_of_a_frame(self) -> None:
        sink = ScriptedSink(40)
        outbox = make_outbox(sink)
        outbox.put(make_delivery(offset=1))
        outbox.flush()
        rest_bytes = outbox.queued_bytes
        outbox.put(make_delivery(offset=2))
        outbox.put(make_delivery("c:d", offset=5))
        outbox.close(b"", discard=True)
        assert outbox.queued_bytes == rest_bytes
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1), "c:d": Position(EPOCH, 5)}
        sink.allow(10**6)
        await outbox.drain(1)
        assert offsets(sink) == [1]
        assert outbox.queued_bytes == 0
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 2), "c:d": Position(EPOCH, 5)}


class TestUnsent:
    def test_nothing_when_all_was_taken(self) -> None:
        outbox = make_outbox(ScriptedSink())
        outbox.put(make_delivery())
        outbox.flush()
        assert outbox.first_unsent() == {}

    def test_the_oldest_of_each_topic_with_what_is_half_sent(self) -> None:
        sink = ScriptedSink(10)
        outbox = make_outbox(sink, budget_bytes=10_000)
        outbox.put(make_delivery("a:b", 3))
        outbox.put(make_delivery("c:d", 9))
        outbox.flush()
        outbox.put(make_delivery("a:b", 4))
        outbox.put(make_delivery("e:f", None))
        outbox.put_frame(b"frame")
        outbox.put_gap(Lost("g:h", Position("e2", 5), last=8))
        assert outbox.first_unsent() == {
            "a:b": Position(EPOCH, 3),
            "c:d": Position(EPOCH, 9),
            "g:h": Position("e2", 5),
        }

    async def test_what_has_left_is_not_unsent_while_more_waits(self) -> None:
        sink = ScriptedSink(10)
        outbox = make_outbox(sink, budget_bytes=10_000)
        outbox.put(make_delivery("a:b", 3, size=100))
        outbox.flush()
        outbox.put(make_delivery("a:b", 4, size=100))
        sink.allow(200)
        with trio.move_on_after(0):
            await outbox.drain(10)
        assert outbox.is_blocked or outbox.first_unsent() == {"a:b": Position(EPOCH, 3)}


def blocked(policy: Overflow, *, waiting: int, budget_bytes: int = 3000, offset: bool = True) -> tuple:
    """An outbox with a blocked socket and `waiting` messages of 100 characters in its queue."""
    sink = ScriptedSink(0)
    outbox = make_outbox(sink, budget_bytes=budget_bytes)
    outbox.put_frame(make_delivery("own").frame(Form.DEVICE_JSON))
    outbox.flush()
    assert outbox.is_blocked

    def put(number: int, topic: str = "a:b", size: int = 100) -> None:
        outbox.put(make_delivery(topic, number if offset else None, size=size, overflow=policy))

    for number in range(1, waiting + 1):
        put(number)
    return sink, outbox, put


async def emptied(sink: ScriptedSink, outbox: object) -> list[object]:
    sink.allow(10**7)
    await outbox.drain(1)
    assert outbox.queued_bytes == 0
    return offsets(sink)


class TestOverflow:
    def test_disconnect_is_told_once_and_ends_the_taking(self) -> None:
        _, outbox, put = blocked(Overflow.DISCONNECT, waiting=40)
        assert outbox.calls.overflows == {Overflow.DISCONNECT: 1}
        assert outbox.queued_bytes <= 3000
        queued_bytes = outbox.queued_bytes
        put(41, "c:d", 1)
        outbox.put_frame(b"x" * 9000)
        assert outbox.queued_bytes == queued_bytes
        assert outbox.calls.overflows == {Overflow.DISCONNECT: 1}
        assert outbox.first_unsent() == {"a:b": Position(EPOCH, 1), "c:d": Position(EPOCH, 41)}

    def test_an_own_frame_that_does_not_fit_disconnects(self) -> None:
        _, outbox, put = blocked(Overflow.GAP, waiting=10)
        outbox.put_frame(b"x" * 3000)
        outbox.put_frame(b"x")
        assert outbox.calls.overflows == {Overflow.DISCONNECT: 1}
        put(11)
        assert outbox.first_unsent()["a:b"] == Position(EPOCH, 1)

    async def test_gap_leaves_the_newest_out(self) -> None:
        sink, outbox, _ = blocked(Overflow.GAP, waiting=30)
        assert outbox.calls.overflows[Overflow.GAP] >= 10
        told = await emptied(sink, outbox)
        kept = len(told) - 1
        assert told == [*range(1, kept + 1), (kept + 1, 30)]
        assert kept * 200 > 3000 / 2

    async def test_drop_oldest_leaves_the_oldest_out(self) -> None:
        sink, outbox, _ = blocked(Overflow.DROP_OLDEST, waiting=30)
        told = await emptied(sink, outbox)
        first = told[1]
        assert told == [(1, first - 1), *range(first, 31)]
        assert (31 - first) * 200 > 3000 / 2

    async def test_latest_keeps_the_newest(self) -> None:
        sink, outbox, _ = blocked(Overflow.LATEST, waiting=20)
        overflows = outbox.calls.overflows[Overflow.LATEST]
        assert overflows == 1, "what was dropped made room for more"
        sink2, outbox2, put = blocked(Overflow.LATEST, waiting=0)
        put(1, "big:one", 2000)
        for number in range(1, 20):
            put(number)
        assert await emptied(sink2, outbox2) == [(1, 18), 19]
        told = await emptied(sink, outbox)
        assert told[-1] == 20

    @pytest.mark.parametrize("policy", [Overflow.GAP, Overflow.DROP_OLDEST, Overflow.LATEST])
    async def test_after_the_backlog_messages_flow_as_before(self, policy: Overflow) -> None:
        sink, outbox, put = blocked(policy, waiting=30)
        before = len(await emptied(sink, outbox))
        put(31)
        put(32)
        outbox.flush()
        assert offsets(sink)[before:] == [31, 32]
        assert not outbox.is_blocked

    @pytest.mark.parametrize("policy", [Overflow.GAP, Overflow.DROP_OLDEST, Overflow.LATEST])
    async def test_without_positions_messages_go_untold(self, policy: Overflow) -> None:
        sink, outbox, _ = blocked(policy, waiting=60, offset=False)
        assert outbox.calls.overflows[policy]
        assert outbox.queued_bytes <= 3000
        sink.allow(10**6)
        await outbox.drain(1)
        messages = read_frames(Form.DEVICE_JSON, bytes(sink.taken))
        assert {message["op"] for message in messages} == {"message"}
        assert 1 < len(messages) < 40
        assert outbox.queued_bytes == 0

    async def test_a_frame_larger_than_the_budget_may_stand_alone(self) -> None:
        sink = ScriptedSink(0)
        outbox = make_outbox(sink, budget_bytes=1000)
        outbox.put(make_delivery(size=5000, offset=1, overflow=Overflow.GAP))
        assert not outbox.calls.overflows
        outbox.put(make_delivery(size=1, offset=2, overflow=Overflow.GAP))
        assert outbox.calls.overflows == {Overflow.GAP: 1}
        assert await emptied(sink, outbox) == [1, (2, 2)]

    @pytest.mark.parametrize("policy", [Overflow.DROP_OLDEST, Overflow.LATEST])
    async def test_where_others_hold_the_budget_gaps_cost_nothing_more(self, policy: Overflow) -> None:
        sink, outbox, put = blocked(policy, waiting=0)
        put(1, "c:d", 2500)
        for number in range(1, 1000):
            put(number)
        assert outbox.queued_bytes <= 3000 + 2 * GAP_BYTES
        assert await emptied(sink, outbox) == [1, (2, 999)]

    async def test_a_gap_between_epochs_is_two(self) -> None:
        sink, outbox, _ = blocked(Overflow.GAP, waiting=30)
        for offset in (1, 2):
            outbox.put(make_delivery("a:b", offset, size=3000, epoch="e2", overflow=Overflow.GAP))
        told = await emptied(sink, outbox)
        assert told[-2][1] == 30
        assert told[-1] == (1, 2)

    async def test_dropping_across_epochs_tells_each(self) -> None:
        sink, outbox, _ = blocked(Overflow.LATEST, waiting=3)
        for offset in (1, 2, 3, 4):
            outbox.put(make_delivery("a:b", offset, size=100, epoch="e2", overflow=Overflow.LATEST))
        outbox.put(make_delivery("a:b", 5, size=1500, epoch="e2", overflow=Overflow.LATEST))
        assert await emptied(sink, outbox) == [(1, 3), (1, 4), 5]

    async def test_topics_behind_take_turns(self) -> None:
        sink, outbox, put = blocked(Overflow.DROP_OLDEST, waiting=0, budget_bytes=20_000)
        for number in range(1, 100):
            for topic in ("a:b", "c:d"):
                put(number, topic)
        sink.allow(10**6)
        await outbox.drain(1)
        order = [
            message["topic"]
            for message in read_frames(Form.DEVICE_JSON, bytes(sink.taken))
            if message["op"] == "message"
        ]
        assert order[1:9] == ["a:b", "c:d"] * 4
        assert outbox.queued_bytes == 0

    async def test_replies_keep_their_order_among_backlogs(self) -> None:
        sink, outbox, _ = blocked(Overflow.LATEST, waiting=30)
        for number in range(5):
            outbox.put_frame(make_delivery("own", number).frame(Form.DEVICE_JSON))
        sink.allow(10**6)
        await outbox.drain(1)
        assert offsets(sink, topic="own") == [1, 0, 1, 2, 3, 4]

    async def test_a_told_loss_joins_no_overflow(self) -> None:
        sink, outbox, put = blocked(Overflow.GAP, waiting=0)
        outbox.put_gap(Lost("a:b", Position(EPOCH, 1), last=5, reason="expired"))
        put(6, size=2900)
        outbox.put_gap(Lost("a:b", Position(EPOCH, 7), last=7, reason="expired"))
        assert await emptied(sink, outbox) == [(1, 5), (6, 6), (7, 7)]
        reasons = [
            message["reason"] for message in read_frames(Form.DEVICE_JSON, bytes(sink.taken)) if message["op"] == "gap"
        ]
        assert reasons == ["expired", "slow", "expired"]


class TestRoomForThePast:
    def test_a_replay_leaves_half_of_the_budget(self) -> None:
        _, outbox, put = blocked(Overflow.GAP, waiting=0, budget_bytes=3000)
        count = 0
        while outbox.has_room(made := make_delivery(offset=count, size=100)):
            outbox.put(made)
            count += 1
        assert 1000 < outbox.queued_bytes <= 1500
        put(1, "c:d", 1000)
        assert not outbox.calls.overflows

    def test_sends_first(self) -> None:
        sink = ScriptedSink()
        outbox = make_outbox(sink, budget_bytes=400)
        outbox.put(make_delivery(offset=1))
        assert outbox.has_room(make_delivery(offset=2))
        assert sink.sends

    def test_a_message_above_the_share_may_stand_alone(self) -> None:
        outbox = make_outbox(ScriptedSink(), budget_bytes=1000)
        assert outbox.has_room(make_delivery(size=5000))
        _, slow, _ = blocked(Overflow.GAP, waiting=0)
        assert not slow.has_room(make_delivery(size=5000))


def test_a_slow_connection_costs_a_put_the_same_however_much_waits() -> None:
    """Counted in lines run, which do not depend on the machine."""

    def steps(budget_bytes: int, policy: Overflow) -> int:
        _, outbox, put = blocked(policy, waiting=0, budget_bytes=budget_bytes)
        number = 0
        while not outbox.calls.overflows:
            number += 1
            put(number)
        return _lines_run(lambda: [put(number + extra) for extra in range(1, 60)])

    for policy in (Overflow.GAP, Overflow.DROP_OLDEST, Overflow.LATEST):
        assert steps(200_000, policy) < 1.5 * steps(10_000, policy)


def _lines_run(work: Callable[[], object]) -> int:
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()  # that of a coverage run
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
