"""Repeats are recognised, and nothing else is taken for one."""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.policy.deduplication import FALSE_POSITIVES, MOST_NODES, Deduplication, Stamp, _Generation, new_filter

LARGEST = 2**64 - 1
NODES = st.sampled_from(["n1-5f2a", "n2-77c0", "n3-0b1e", ""])
NEAR = st.integers(0, 40)
MESSAGES = st.lists(st.tuples(NODES, NEAR | st.integers(0, LARGEST)), max_size=200)


class CredulousFilter:
    """A filter at its very worst: it has seen everything."""

    def add(self, entry: Stamp) -> None: ...

    def __contains__(self, entry: Stamp) -> bool:
        return True


class ListeningFilter:
    """A filter that is exact, and keeps what it was asked."""

    def __init__(self) -> None:
        self.entries: set[Stamp] = set()
        self.lookups = 0

    def add(self, entry: Stamp) -> None:
        self.entries.add(entry)

    def __contains__(self, entry: Stamp) -> bool:
        self.lookups += 1
        return entry in self.entries


def check_against_sets(known: Deduplication, window: int, messages: Iterable[Stamp]) -> None:
    """Everything ever accepted is in one set, the last `window` of it in another: "seen" lies between the two."""
    ever: set[Stamp] = set()
    recent: OrderedDict[Stamp, None] = OrderedDict()
    for entry in messages:
        answer = known.seen(*entry)
        assert answer <= (entry in ever), f"{entry} was lost: it never came before"
        assert answer >= (entry in recent), f"{entry} was delivered twice"
        if not answer:
            ever.add(entry)
            recent[entry] = None
            recent.move_to_end(entry)
            if len(recent) > window:
                recent.popitem(last=False)


@given(st.integers(1, 30), MESSAGES)
def test_every_repeat_inside_the_window_is_recognised_and_nothing_else(window: int, messages: list[Stamp]) -> None:
    check_against_sets(Deduplication(window), window, messages)


@given(st.integers(1, 30), MESSAGES)
def test_a_filter_that_says_yes_to_everything_loses_no_message(window: int, messages: list[Stamp]) -> None:
    check_against_sets(Deduplication(window, lambda _: CredulousFilter()), window, messages)


@given(st.lists(st.tuples(NODES, st.integers(0, LARGEST)), unique=True, max_size=300), st.integers(1, 50))
def test_in_whatever_order_they_come_each_message_is_new_once(messages: list[Stamp], window: int) -> None:
    for filters in (new_filter, lambda _: CredulousFilter()):
        known = Deduplication(window, filters)
        assert [known.seen(*entry) for entry in messages] == [False] * len(messages)


def test_a_reconnect_that_brings_everything_again_brings_nothing_new() -> None:
    known = Deduplication(1000)
    messages = [(f"node{number % 3}", number) for number in range(1000)]
    assert not any(known.seen(*entry) for entry in messages)
    assert all(known.seen(*entry) for entry in messages)
    assert all(known.seen(*entry) for entry in reversed(messages))


def test_no_more_than_twice_the_window_is_remembered() -> None:
    known = Deduplication(10)
    for number in range(21):
        known.seen("n", number)
    assert not known.seen("n", 0)
    assert known.seen("n", 20)


def test_the_filter_answers_for_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ListeningFilter] = []

    def listening(_: int) -> ListeningFilter:
        made.append(ListeningFilter())
        return made[-1]

    known = Deduplication(100, listening)
    first, second = made
    monkeypatch.setattr(_Generation, "holds", None)
    assert not any(known.seen("n", number) for number in range(50))
    assert (first.lookups, second.lookups) == (50, 50)


def test_what_is_taken_for_old_by_the_filter_alone_is_rare() -> None:
    window = 10_000
    known = Deduplication(window)
    for number in range(window - 1):
        known.seen("n", number)
    filled = known._newer.filter
    assert sum(("other", number) in filled for number in range(window)) <= 3 * FALSE_POSITIVES * window


@pytest.mark.parametrize("sequence", [-1, 2**64])
def test_a_number_that_is_no_sequence_is_new_each_time_and_leaves_nothing_behind(sequence: int) -> None:
    known = Deduplication(10)
    known.seen("n", 5)
    for node in ("n", "m", "n", "m"):
        assert not known.seen(node, sequence)
    assert known.seen("n", 5)
    assert (known._newer.count, list(known._newer.sequences)) == (1, ["n"])


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="recognises none"):
        Deduplication(0)


# --- what it holds ----------------------------------------------------------------------------------------------------


def bytes_held(known: Deduplication) -> int:
    """All that the window takes, the interpreter's own bookkeeping included."""
    total = 0
    for generation in (known._newer, known._older):
        total += generation.filter.size_in_bits // 8  # type: ignore[attr-defined]
        total += sys.getsizeof(generation.sequences)
        total += sum(sys.getsizeof(node) + sys.getsizeof(known) for node, known in generation.sequences.items())
    return total


def test_memory_is_bounded_whatever_comes() -> None:
    window = 10_000
    numbers: dict[str, Callable[[int], Stamp]] = {
        "in order": lambda number: ("n", number),
        "backwards": lambda number: ("n", LARGEST - number),
        "far apart": lambda number: (f"n{number % 7}", number * 2**40),
        "each from another node": lambda number: (f"a node that will never come again, {number}", 1),
    }
    for make in numbers.values():
        known, most = Deduplication(window), 0
        for number in range(5 * window):
            known.seen(*make(number))
            if number % 100 == 0:
                most = max(most, bytes_held(known))
        assert most <= 2 * (11 * window + 400 * MOST_NODES)


def test_nodes_that_are_gone_are_forgotten() -> None:
    known = Deduplication(100)
    for number in range(500):
        known.seen(f"old{number % 50}", number)
    for number in range(200):
        known.seen("new", number)
    assert {*known._newer.sequences, *known._older.sequences} == {"new"}


def test_more_nodes_than_any_cluster_has_shorten_the_window() -> None:
    known = Deduplication(MOST_NODES * 10)
    for number in range(2 * MOST_NODES):
        known.seen(f"n{number}", 1)
    assert known.seen(f"n{2 * MOST_NODES - 1}", 1)
    assert known.seen(f"n{MOST_NODES}", 1)
    assert not known.seen("n0", 1)


# --- what it costs, beside the plainest structure that is exact -------------------------------------------------------


class PlainSets:
    """The same window of two generations as sets of Python's own."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._newer: dict[str, set[int]] = {}
        self._older: dict[str, set[int]] = {}
        self._count = 0

    def seen(self, node: str, sequence: int) -> bool:
        newer = self._newer.get(node)
        if newer is None:
            newer = self._newer[node] = set()
        older = self._older.get(node)
        if sequence in newer or (older is not None and sequence in older):
            return True
        newer.add(sequence)
        self._count += 1
        if self._count >= self._window:
            self._newer, self._older, self._count = {}, self._newer, 0
        return False

    @property
    def bytes_held(self) -> int:
        sets = [*self._newer.values(), *self._older.values()]
        return sum(sys.getsizeof(numbers) + sum(map(sys.getsizeof, numbers)) for numbers in sets)


def nanoseconds_each(seen: Callable[[str, int], bool], messages: list[Stamp]) -> float:
    began_ns = time.perf_counter_ns()
    for node, sequence in messages:
        seen(node, sequence)
    return (time.perf_counter_ns() - began_ns) / len(messages)


@pytest.mark.measured
def test_it_costs_a_part_of_the_memory_and_little_more_time_than_sets(report: Callable[[str], None]) -> None:
    messages = [(f"node{number % 5}", 2**32 + number) for number in range(199_999)]
    rounds = []
    for _ in range(5):
        known, plain = Deduplication(), PlainSets(100_000)
        rounds.append((nanoseconds_each(plain.seen, messages), nanoseconds_each(known.seen, messages)))
    plain_ns, known_ns = (min(times) for times in zip(*rounds, strict=True))
    plain_bytes, known_bytes = plain.bytes_held, bytes_held(known)
    report(
        f"deduplication: {known_ns:.0f} ns a message and {known_bytes / 1e6:.1f} MB for a full window; "
        f"plain sets: {plain_ns:.0f} ns and {plain_bytes / 1e6:.1f} MB"
    )
    assert known_bytes * 4 <= plain_bytes
    assert known_ns <= 5 * plain_ns
