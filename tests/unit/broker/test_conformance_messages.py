"""The conformance suite, first part: what `notifyd/broker/base.py` promises of messages, positions and keys."""

from typing import Any

import msgspec
import pytest

from notifyd.broker.base import Accepted, Retention
from notifyd.model import SessionId
from protocol.position import Position
from tests.unit.broker.conformance import Trial, data_of

NO_HISTORY = Retention(0, 0.0)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


# --- publish ---------------------------------------------------------------------------------------------------------


async def test_offsets_count_from_one_within_one_epoch(trial: Trial) -> None:
    positions = await trial.publish("a:b", *range(5))
    assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
    assert len({position.epoch for position in positions}) == 1
    assert 0 < len(positions[0].epoch) <= 32
    assert ":" not in positions[0].epoch


async def test_topics_have_positions_of_their_own(trial: Trial) -> None:
    [one] = await trial.publish("a:b", 1)
    [other] = await trial.publish("a:c", 1)
    assert one.offset == other.offset == 1
    assert one.epoch != other.epoch


async def test_a_subscribed_topic_is_delivered_as_published(trial: Trial) -> None:
    await trial.subscribe("a:b")
    answer = await trial.broker.publish("a:b", {"n": 1}, trial.keep(), sender="ann", origin=SessionId("s1"))
    await trial.delivered_all()
    [notification] = trial.delivered
    assert (notification.topic, notification.data) == ("a:b", {"n": 1})
    assert (notification.sender, notification.origin) == ("ann", "s1")
    assert notification.position == answer.position
    assert notification.time_ms > 1_700_000_000_000


@pytest.mark.parametrize("history", [0, 1000], ids=["without history", "with history"])
async def test_a_trace_comes_with_its_message_and_a_known_key_keeps_the_first(trial: Trial, history: int) -> None:
    await trial.subscribe("a:b", history)
    for number, trace in enumerate([TRACE, TRACE.replace("4bf9", "5bf9")]):
        answer = await trial.broker.publish("a:b", number, trial.keep(history), key="k", trace=trace)
        assert answer.repeated is bool(number)
    await trial.broker.publish("a:b", 2, trial.keep(history))
    await trial.delivered_all()
    assert [(message.data, message.trace) for message in trial.delivered] == [(0, TRACE), (2, None)]
    page = await trial.read("a:b", history=history)
    assert [message.trace for message in page.messages] == ([TRACE, None] if history else [])


async def test_a_topic_without_history_is_delivered_without_position(trial: Trial) -> None:
    await trial.subscribe("a:b")
    assert await trial.broker.publish("a:b", 1, NO_HISTORY) == Accepted(None)
    await trial.delivered_all()
    assert [(message.data, message.position) for message in trial.delivered] == [(1, None)]


async def test_messages_are_delivered_in_order(trial: Trial) -> None:
    await trial.subscribe("a:b")
    await trial.publish("a:b", *range(100))
    assert await trial.received() == list(range(100))


async def test_only_subscribed_topics_are_delivered(trial: Trial) -> None:
    await trial.publish("a:b", 1)
    await trial.subscribe("a:b")
    await trial.publish("a:b", 2)
    await trial.publish("a:c", 3)
    assert await trial.received() == [2]
    await trial.broker.unsubscribe("a:b")
    await trial.publish("a:b", 4)
    assert await trial.received() == []


async def test_interest_is_a_set(trial: Trial) -> None:
    await trial.subscribe("a:b")
    await trial.subscribe("a:b")
    await trial.publish("a:b", 1)
    assert await trial.received() == [1]
    await trial.broker.unsubscribe("a:b")
    await trial.broker.unsubscribe("a:b")
    await trial.broker.unsubscribe("never:subscribed")
    await trial.publish("a:b", 2)
    assert await trial.received() == []


# --- history ---------------------------------------------------------------------------------------------------------


async def test_since_is_exclusive(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2, 3, 4)
    page = await trial.read("a:b", positions[1])
    assert (data_of(page), page.continuous, page.more) == ([3, 4], True, False)
    assert [message.position for message in page.messages] == positions[2:]
    assert page.top == positions[-1]


async def test_offset_zero_stands_before_the_first_message(trial: Trial) -> None:
    before = (await trial.read("a:b", "latest")).top
    assert before is not None
    assert before.offset == 0
    positions = await trial.publish("a:b", 1, 2)
    assert positions[0].epoch == before.epoch
    page = await trial.read("a:b", before)
    assert (data_of(page), page.continuous) == ([1, 2], True)


async def test_earliest_is_everything_kept(trial: Trial) -> None:
    await trial.publish("a:b", 1, 2, 3)
    page = await trial.read("a:b", "earliest")
    assert (data_of(page), page.continuous, page.more) == ([1, 2, 3], True, False)


async def test_earliest_is_not_continuous_once_something_was_trimmed(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2, 3, history=2)
    page = await trial.read("a:b", "earliest", history=2)
    assert (data_of(page), page.continuous, page.top) == ([2, 3], False, positions[-1])


async def test_latest_is_the_top_alone(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    page = await trial.read("a:b", "latest")
    assert (data_of(page), page.continuous, page.more, page.top) == ([], True, False, positions[-1])


async def test_a_topic_that_never_had_a_message_has_one_stable_top(trial: Trial) -> None:
    pages = [await trial.read("a:b", since) for since in ("latest", "earliest", "latest")]
    assert {page.top.epoch for page in pages if page.top} == {pages[0].top.epoch if pages[0].top else None}
    assert all((data_of(page), page.continuous) == ([], True) for page in pages)


async def test_the_newest_position_is_continuous_and_has_nothing_after_it(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    page = await trial.read("a:b", positions[-1])
    assert (data_of(page), page.continuous, page.more) == ([], True, False)


@pytest.mark.parametrize("offset", [3, 10**15, -1, -(2**63)])
async def test_a_position_outside_the_epoch_is_not_continuous(trial: Trial, offset: int) -> None:
    [_, top] = await trial.publish("a:b", 1, 2)
    page = await trial.read("a:b", Position(top.epoch, offset))
    assert (data_of(page), page.continuous, page.more, page.top) == ([], False, False, top)


async def test_a_position_of_another_epoch_is_not_continuous(trial: Trial) -> None:
    [_, top] = await trial.publish("a:b", 1, 2)
    for epoch in ("", "other", (await trial.publish("a:c", 1))[0].epoch):
        page = await trial.read("a:b", Position(epoch, 2))
        assert (data_of(page), page.continuous, page.top) == ([], False, top)


async def test_a_position_on_an_unknown_topic_is_not_continuous(trial: Trial) -> None:
    page = await trial.read("never:seen", Position("x", 0))
    assert (data_of(page), page.continuous) == ([], False)
    assert page.top is not None
    assert page.top.offset == 0


async def test_a_position_before_what_was_trimmed_is_not_continuous(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2, 3, 4, 5, history=2)
    continuity = [(await trial.read("a:b", position, history=2)).continuous for position in positions]
    assert continuity == [False, False, True, True, True]
    page = await trial.read("a:b", positions[1], history=2)
    assert (data_of(page), page.top) == ([], positions[-1])
    assert data_of(await trial.read("a:b", positions[2], history=2)) == [4, 5]


async def test_messages_end_after_their_time_and_positions_do_not(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    await trial.advance(trial.ttl_s * 0.5)
    assert (await trial.read("a:b", positions[0])).continuous
    await trial.advance(trial.ttl_s * 1.5)
    old, newest = await trial.read("a:b", positions[0]), await trial.read("a:b", positions[1])
    assert (data_of(old), old.continuous) == ([], False)
    assert (data_of(newest), newest.continuous, newest.top) == ([], True, positions[1])
    earliest = await trial.read("a:b", "earliest")
    assert (data_of(earliest), earliest.continuous) == ([], False)
    assert (await trial.publish("a:b", 3)) == [Position(positions[0].epoch, 3)]


async def test_each_message_has_a_time_of_its_own(trial: Trial) -> None:
    positions = await trial.publish("a:b", "old")
    await trial.advance(trial.ttl_s * 0.6)
    await trial.publish("a:b", "young")
    await trial.advance(trial.ttl_s * 0.6)
    assert data_of(await trial.read("a:b", "earliest")) == ["young"]
    assert (await trial.read("a:b", positions[0])).continuous


async def test_a_limit_cuts_and_the_last_position_goes_on(trial: Trial) -> None:
    await trial.publish("a:b", *range(10))
    since: Any = "earliest"
    read: list[list[Any]] = []
    more = True
    while more:
        page = await trial.read("a:b", since, limit=4)
        assert page.continuous
        read.append(data_of(page))
        since, more = page.messages[-1].position, page.more
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_limit_that_is_just_reached_leaves_nothing_out(trial: Trial) -> None:
    positions = await trial.publish("a:b", *range(4))
    assert not (await trial.read("a:b", "earliest", limit=4)).more
    assert not (await trial.read("a:b", positions[0], limit=3)).more
    assert (await trial.read("a:b", positions[0], limit=2)).more


async def test_every_place_of_a_long_history_can_be_read(trial: Trial) -> None:
    positions = await trial.publish("a:b", *range(50), history=30)
    for place in range(20, 50):
        page = await trial.read("a:b", positions[place - 1], limit=7, history=30)
        assert (data_of(page), page.continuous) == (list(range(place, min(place + 7, 50))), True)
        assert page.more == (place + 7 < 50)


async def test_history_returns_what_was_delivered(trial: Trial) -> None:
    await trial.subscribe("a:b")
    await trial.broker.publish("a:b", [1], trial.keep(), sender="ann", origin=SessionId("s1"))
    await trial.broker.publish("a:b", [2], trial.keep())
    await trial.delivered_all()
    delivered = [msgspec.structs.replace(one, received_s=None) for one in trial.delivered]  # when, no history keeps
    assert list((await trial.read("a:b")).messages) == delivered


@pytest.mark.parametrize(
    "data",
    [None, True, "text ☃", b"\x00\xff", -(2**63), 2**64 - 1, 1.5, [], {}, {"a": [{"b": b"c"}, None, 0.1]}],
)
async def test_history_keeps_every_value_that_the_wire_carries(trial: Trial, data: Any) -> None:
    await trial.publish("a:b", data)
    [read] = data_of(await trial.read("a:b"))
    assert read == data
    assert type(read) is type(data)


async def test_history_is_not_changed_by_who_reads_or_published_it(trial: Trial) -> None:
    data = {"list": [1]}
    await trial.publish("a:b", data)
    data["list"].append(2)
    [read] = data_of(await trial.read("a:b"))
    read["list"].append(3)
    assert data_of(await trial.read("a:b")) == [{"list": [1]}]


# --- a retention that changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", ["earliest", Position("x", 0)])
async def test_without_history_the_past_is_not_continuous(trial: Trial, since: Any) -> None:
    await trial.broker.publish("a:b", 1, NO_HISTORY)
    page = await trial.broker.history("a:b", since, 10, NO_HISTORY)
    assert (data_of(page), page.top, page.continuous, page.more) == ([], None, False, False)


async def test_without_history_latest_is_continuous(trial: Trial) -> None:
    page = await trial.broker.history("a:b", "latest", 10, NO_HISTORY)
    assert (data_of(page), page.top, page.continuous, page.more) == ([], None, True, False)


async def test_lowered_history_trims_and_raised_again_stays_honest(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2, 3, 4)
    assert data_of(await trial.read("a:b", "earliest", history=2)) == [3, 4]
    assert data_of(await trial.read("a:b", "earliest", history=1000)) == [3, 4]
    assert not (await trial.read("a:b", positions[0])).continuous
    assert (await trial.read("a:b", positions[1])).continuous


async def test_history_read_away_and_raised_again_stays_honest(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    assert (await trial.broker.history("a:b", "earliest", 10, NO_HISTORY)).top is None
    page = await trial.read("a:b", positions[0])
    assert (data_of(page), page.continuous) in (([], False), ([2], True))  # a broker may trim by such a read, or not
    newest = await trial.read("a:b", positions[1])
    assert (newest.continuous, newest.top) == (True, positions[1])


async def test_a_message_without_position_ends_the_epoch(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    await trial.broker.publish("a:b", "in between", NO_HISTORY)
    page = await trial.read("a:b", positions[1])
    assert (data_of(page), page.continuous) == ([], False)
    [new] = await trial.publish("a:b", 3)
    assert new.offset == 1
    assert new.epoch != positions[0].epoch


async def test_a_longer_time_brings_nothing_back(trial: Trial) -> None:
    positions = await trial.publish("a:b", 1, 2)
    await trial.advance(trial.ttl_s * 1.1)
    assert not (await trial.read("a:b", positions[0])).continuous
    longer = Retention(1000, trial.ttl_s * 10)
    assert not (await trial.broker.history("a:b", positions[0], 10, longer)).continuous


# --- idempotency keys ------------------------------------------------------------------------------------------------


async def test_a_known_key_gets_the_first_answer_and_delivers_nothing(trial: Trial) -> None:
    await trial.subscribe("a:b")
    first = await trial.broker.publish("a:b", "one", trial.keep(), key="k")
    await trial.publish("a:b", "two")
    again = await trial.broker.publish("a:b", "other data", trial.keep(), key="k")
    assert (first.repeated, again.repeated) == (False, True)
    assert again.position == first.position
    assert await trial.received() == ["one", "two"]
    assert data_of(await trial.read("a:b")) == ["one", "two"]


async def test_a_key_holds_without_history_too(trial: Trial) -> None:
    await trial.subscribe("a:b")
    assert await trial.broker.publish("a:b", 1, NO_HISTORY, key="k") == Accepted(None)
    assert await trial.broker.publish("a:b", 1, NO_HISTORY, key="k") == Accepted(None, repeated=True)
    assert await trial.received() == [1]


async def test_keys_of_different_topics_are_independent(trial: Trial) -> None:
    answers = [await trial.broker.publish(topic, 1, trial.keep(), key="k") for topic in ("a:b", "a:c")]
    assert not any(answer.repeated for answer in answers)
    swapped = [
        await trial.broker.publish(topic, 1, trial.keep(), key=key) for topic, key in (("a:b", "c:k"), ("a:b:c", "k"))
    ]
    assert not any(answer.repeated for answer in swapped)


async def test_a_key_outlives_its_message(trial: Trial) -> None:
    first = await trial.broker.publish("a:b", 1, trial.keep(1), key="k")
    await trial.publish("a:b", 2, history=1)
    again = await trial.broker.publish("a:b", 1, trial.keep(1), key="k")
    assert again == Accepted(first.position, repeated=True)


async def test_a_key_is_known_for_its_time_and_repeating_does_not_prolong_it(trial: Trial) -> None:
    await trial.broker.publish("a:b", 1, trial.keep(), key="k")
    for _ in range(3):
        await trial.advance(trial.key_ttl_s * 0.3)
        assert (await trial.broker.publish("a:b", 1, trial.keep(), key="k")).repeated
    await trial.advance(trial.key_ttl_s * 0.3)
    assert not (await trial.broker.publish("a:b", 1, trial.keep(), key="k")).repeated
    assert (await trial.broker.publish("a:b", 1, trial.keep(), key="k")).repeated
