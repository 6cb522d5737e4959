"""What each arrival means: duplicates, gaps, epochs, and what the server says when a subscription begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from notifyd.client.track import Track, position_of
from protocol.messages import Entry, Gap, HistoryReply, Message, Restored, Since, Subscribed
from protocol.position import Position
from tests.unit.client.scripted_server import EPOCH, at


def subscribed(offset: int | None = None, recovered: bool | None = None, epoch: str = EPOCH) -> Subscribed:
    reply = Subscribed(id=1, topic="a")
    if offset is not None:
        reply.epoch, reply.offset = epoch, offset
    if recovered is not None:
        reply.recovered = recovered
    return reply


def message(offset: int | None, epoch: str = EPOCH) -> Message:
    if offset is None:
        return Message(topic="a", data=None, time=1)
    return Message(topic="a", data=offset, time=1, epoch=epoch, offset=offset)


def gap(first: int, last: int, reason: str, epoch: str = EPOCH) -> Gap:
    return Gap(topic="a", first=first, last=last, reason=reason, epoch=epoch)


def unnamed(reason: str) -> Gap:
    return Gap(topic="a", first=0, last=0, reason=reason)


def begun(since: Since, reply: Subscribed) -> Track:
    track = Track("a", since)
    assert track.since == since
    track.begin(since, reply)
    return track


@pytest.mark.parametrize(
    ("arrivals", "seen"),
    [
        ([6, 7], [message(6), message(7)]),
        ([5, 6, 6, 5, 7], [message(6), message(7)]),
        ([8], [gap(6, 7, "skipped"), message(8)]),
        ([6, 9, 8, 10], [message(6), gap(7, 8, "skipped"), message(9), message(10)]),
    ],
)
def test_order_duplicates_and_jumps(arrivals: list[int], seen: list[Message | Gap]) -> None:
    track = begun("latest", subscribed(5))
    assert [event for offset in arrivals for event in track.take(message(offset))] == seen


def test_a_new_epoch_is_a_gap() -> None:
    track = begun("latest", subscribed(5))
    assert track.take(message(3, "e2")) == [gap(1, 2, "epoch", "e2"), message(3, "e2")]
    assert track.take(message(1, "e3")) == [unnamed("epoch"), message(1, "e3")]
    assert track.since == at(1, "e3")


def test_messages_without_positions_pass() -> None:
    track = begun("latest", subscribed())
    assert track.take(message(None)) == [message(None)]
    assert track.since == "latest"
    assert track.position is None


def test_the_first_message_of_an_unknown_position_sets_it() -> None:
    track = begun("latest", subscribed(9, recovered=True))
    assert track.position is None
    assert track.take(message(4)) == [message(4)]
    assert track.take(message(6)) == [gap(5, 5, "skipped"), message(6)]


def test_earliest() -> None:
    track = begun("earliest", subscribed(9, recovered=False))
    assert track.since == "earliest"
    assert track.take(message(4)) == [gap(1, 3, "skipped"), message(4)]
    assert track.since == at(4)


def test_earliest_without_history_goes_on_from_the_latest() -> None:
    track = begun("earliest", subscribed(recovered=False))
    assert track.since == "latest"


@pytest.mark.parametrize(
    ("asked", "reply", "gaps", "position"),
    [
        (at(5), subscribed(9, recovered=True), [], at(5)),
        (at(5), subscribed(9, recovered=False), [gap(6, 9, "expired")], at(9)),
        (at(5), subscribed(9, recovered=False, epoch="e2"), [gap(1, 9, "epoch", "e2")], at(9, "e2")),
        (at(5), subscribed(0, recovered=False, epoch="e2"), [unnamed("epoch")], at(0, "e2")),
        (at(5), subscribed(3, recovered=False), [unnamed("expired")], at(3)),
        (at(5), subscribed(recovered=False), [unnamed("no_history")], None),
        (at(5), subscribed(), [unnamed("no_history")], None),
        ("latest", subscribed(9), [], at(9)),
        ("latest", subscribed(), [], None),
        ("latest", subscribed(9, recovered=False), [], None),
    ],
)
def test_what_the_first_answer_says(
    asked: Since, reply: Subscribed, gaps: list[Gap], position: Position | None
) -> None:
    track = Track("a", asked)
    assert track.begin(asked, reply) == gaps
    assert track.position == position


def test_coming_back_to_a_topic_without_history_is_a_gap() -> None:
    track = begun("latest", subscribed())
    assert track.begin("latest", subscribed()) == [unnamed("no_history")]
    assert track.begin("latest", subscribed(recovered=False)) == []


def test_an_answer_never_goes_back_behind_what_was_taken() -> None:
    track = begun(at(2), subscribed(9, recovered=True))
    assert track.take(message(3)) == [message(3)]
    assert track.begin(at(2), subscribed(9, recovered=True)) == []
    assert track.take(message(3)) == []
    assert track.position == at(3)


@pytest.mark.parametrize(
    ("told", "seen"),
    [
        (gap(6, 8, "slow"), [gap(6, 8, "slow")]),
        (gap(7, 8, "slow"), [gap(6, 8, "slow")]),
        (gap(4, 8, "expired"), [gap(6, 8, "expired")]),
        (gap(3, 5, "slow"), []),
        (Gap(topic="a", first=6, last=8, reason="slow"), [gap(6, 8, "slow")]),
        (gap(1, 4, "epoch", "e2"), [gap(1, 4, "epoch", "e2")]),
    ],
)
def test_gaps_the_server_tells_are_fitted_in(told: Gap, seen: list[Gap]) -> None:
    assert begun("latest", subscribed(5)).take_gap(told) == seen


def test_gaps_where_no_position_is_known() -> None:
    track = begun("latest", subscribed())
    nameless = Gap(topic="a", first=1, last=2, reason="slow")
    assert track.take_gap(nameless) == [nameless]
    assert track.position is None
    assert track.take_gap(gap(1, 2, "slow")) == [gap(1, 2, "slow")]
    assert track.position == at(2)


def page(*offsets: int, epoch: str = EPOCH) -> HistoryReply:
    entries = [Entry(topic="a", data=offset, time=1, epoch=epoch, offset=offset) for offset in offsets]
    return HistoryReply(id=1, topic="a", messages=entries, more=False, epoch=epoch)


def test_pages_of_history() -> None:
    track = begun("latest", subscribed(5))
    assert track.take_page(page(6, 7)) == [message(6), message(7)]
    assert track.take_page(page(10)) == [gap(8, 9, "skipped"), message(10)]
    assert track.take_page(page(epoch="e2")) == [unnamed("epoch")]
    assert track.position == at(0, "e2")
    assert track.take_page(HistoryReply(id=1, topic="a", messages=[], more=False)) == []


def test_offsets_of_own_publishes_that_are_not_echoed() -> None:
    track = begun("latest", subscribed(5))
    assert track.jumps(message(7))
    track.pass_over(at(6))
    assert track.position == at(6)
    assert not track.jumps(message(7))
    track.pass_over(at(9))
    track.pass_over(at(8))
    assert track.position == at(6)
    assert track.take(message(7)) == [message(7)]
    assert track.position == at(9)
    track.pass_over(at(12))
    assert track.take_page(page(10, 11, 12, 13)) == [message(10), message(11), message(13)]
    track.pass_over(at(20))
    assert track.take(message(20)) == []
    assert track.take(message(1, "e2")) == [unnamed("epoch"), message(1, "e2")]
    assert not track.jumps(gap(9, 10, "slow", "e2"))
    unknown = Track("a", "latest")
    unknown.pass_over(at(3))
    assert unknown.position is None
    assert unknown.take(message(2)) == [message(2)]
    assert unknown.position == at(3)


def test_jumps() -> None:
    track = Track("a", "latest")
    assert track.jump(at(3), "slow") == [unnamed("slow")]
    assert track.has_reached(at(3))
    assert not track.has_reached(at(4))
    assert not Track("a", "latest").has_reached(at(1))


def test_positions_of_events() -> None:
    assert position_of(message(3)) == at(3)
    assert position_of(gap(3, 5, "slow")) == at(5)
    assert position_of(message(None)) is None
    assert position_of(unnamed("slow")) is None
    assert Restored().epoch is UNSET


@given(st.lists(st.tuples(st.sampled_from(["e1", "e2"]), st.integers(1, 30)), max_size=40))
def test_whatever_arrives_nothing_comes_twice_and_every_hole_is_named(arrivals: list[tuple[str, int]]) -> None:
    """Walks over what a consumer sees: each step is the next offset, a gap's end, or a told change of epoch."""
    track = begun("latest", subscribed(0))
    stands = at(0)
    for epoch, offset in arrivals:
        for event in track.take(message(offset, epoch)):
            if isinstance(event, Message):
                assert stands.epoch == event.epoch
                assert event.offset == stands.offset + 1
            elif event.epoch is UNSET:
                stands = at(0, epoch)
                continue
            else:
                assert event.first == (stands.offset + 1 if event.epoch == stands.epoch else 1)
            position = position_of(event)
            assert position is not None
            stands = position
    assert track.position == stands


def test_what_is_read_from_the_history_is_the_message_it_was() -> None:
    track = begun("latest", subscribed(5))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    fields = {"topic": "a", "data": 6, "time": 1, "epoch": EPOCH, "offset": 6, "sender": "ada", "trace": trace}
    page = HistoryReply(id=1, topic="a", messages=[Entry(**fields)], more=False, epoch=EPOCH)
    assert track.take_page(page) == [Message(**fields)]
