from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.slots import SLOTS, SlotTable, SlotView, read_slots, redirected_to

A, B, C = Endpoint("10.0.0.1", 7001), Endpoint("10.0.0.2", 7002), Endpoint("h3", 7003)
OWNERS = st.sampled_from([A, B, C, None])


def node(endpoint: Endpoint, *more: Any) -> list[Any]:
    return [endpoint.host.encode(), endpoint.port, b"id", *more]


def test_a_reply_becomes_a_view() -> None:
    reply = [
        [10923, 16383, node(C, [b"hostname", b"h3"])],
        [0, 5460, node(A), node(B)],
        [5461, 5461, node(A)],
    ]
    view = read_slots(reply, A)
    assert view == SlotView(((0, 5461, A), (10923, 16383, C)), frozenset({B}))
    assert view.served == 5462 + 5461


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_server_that_does_not_know_its_host_is_the_one_that_was_asked(host: Any) -> None:
    assert read_slots([[0, 5, [host, 7009, b"id", []]]], A).ranges == ((0, 5, Endpoint("10.0.0.1", 7009)),)
    assert redirected_to("", 1, B) == Endpoint("10.0.0.2", 1)
    assert redirected_to("h9", 1, B) == Endpoint("h9", 1)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        7,
        [1],
        [[0, 5]],
        [[0, 16384, node(A)]],
        [[-1, 5, node(A)]],
        [[b"0", 5, node(A)]],
        [[0, 5, None]],
        [[0, 5, [b"h"]]],
        [[0, 5, [b"\xff", 1]]],
        [[0, 5, [b"h", b"x"]]],
        [[0, 5, [7, 1]]],
    ],
)
def test_what_is_no_table_of_slots_is_refused(reply: Any) -> None:
    with pytest.raises(ValueError, match="what it answers to CLUSTER SLOTS is no table of slots"):
        read_slots(reply, A)


@given(st.recursive(st.none() | st.integers() | st.binary() | st.booleans(), st.lists, max_leaves=20))
def test_nothing_else_than_that_error_comes_of_any_reply(reply: Any) -> None:
    try:
        view = read_slots(reply, A)
    except ValueError:
        return
    SlotTable().replace(view.ranges)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, SLOTS - 1), OWNERS), max_size=30))
def test_the_table_is_what_the_ranges_say(cuts: list[tuple[int, Endpoint | None]]) -> None:
    owners: list[Endpoint | None] = [None] * SLOTS
    for start, owner in cuts:
        owners[start : start + 700] = [owner] * len(owners[start : start + 700])
    reply = [[slot, slot, node(owner)] for slot, owner in enumerate(owners) if owner is not None]
    view = read_slots(reply, A)
    table = SlotTable()
    assert table.replace(view.ranges) is any(owners)
    assert [table.owner(slot) for slot in range(SLOTS)] == owners
    assert table.masters == {owner for owner in owners if owner}
    assert {slot for first, last in table.unserved() for slot in range(first, last + 1)} == {
        slot for slot, owner in enumerate(owners) if owner is None
    }
    assert view.served == sum(owner is not None for owner in owners)
    assert all(one[2] != other[2] or one[1] + 1 < other[0] for one, other in pairwise(view.ranges))


def test_a_table_tells_news_from_what_it_knew() -> None:
    table = SlotTable()
    assert table.unserved() == [(0, SLOTS - 1)]
    assert table.replace([(0, SLOTS - 1, A)])
    assert not table.replace([(0, 99, A), (100, SLOTS - 1, A)])
    assert table.unserved() == []
    assert table.move(7, B)
    assert not table.move(7, B)
    assert (table.owner(6), table.owner(7), table.owner(8)) == (A, B, A)
    assert table.masters == {A, B}
    assert table.replace([(0, 9, A)])
    assert table.unserved() == [(10, SLOTS - 1)]
