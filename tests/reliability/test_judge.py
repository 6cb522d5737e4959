"""The oracle itself: it accepts what the promise allows, and sees every way of breaking it."""

import pytest

from protocol.position import Position
from tests.reliability.judge import Acknowledged, Arrived, Begun, Event, Gapped, Resumed, Verdict, judge


def at(offset: int, epoch: str = "a") -> Position:
    return Position(epoch, offset)


def m(offset: int, epoch: str = "a", data: str | None = None) -> Arrived:
    return Arrived(at(offset, epoch), data or f"{epoch}{offset}")


def acks(*offsets: int, epoch: str = "a") -> list[Acknowledged]:
    return [Acknowledged(at(offset, epoch), f"{epoch}{offset}") for offset in offsets]


def held(account: list[Event], acknowledged: list[Acknowledged] | None = None) -> Verdict:
    acknowledged = acks(1, 2, 3, 4) if acknowledged is None else acknowledged
    sent = [ack.data for ack in acknowledged] + ["tried"]
    return judge(acknowledged, sent, {"w": account})


FINE: dict[str, tuple[list[Event], list[Acknowledged]]] = {
    "all in order": ([Begun(at(0)), m(1), m(2), m(3), m(4)], acks(1, 2, 3, 4)),
    "nothing before it began": ([Begun(at(2)), m(3), m(4)], acks(1, 2, 3, 4)),
    "came back and goes on": ([Begun(at(0)), m(1), Resumed(at(1), at(3), True), m(2), m(3), m(4)], acks(1, 2, 3, 4)),
    "a gap that names": ([Begun(at(0)), m(1), Gapped("a", 2, 3, "expired"), m(4)], acks(1, 2, 3, 4)),
    "a gap at the end": ([Begun(at(0)), m(1), m(2), Gapped("a", 3, 4, "slow")], acks(1, 2, 3, 4)),
    "not recovered": ([Begun(at(0)), m(1), Resumed(at(1), at(3), False), m(4)], acks(1, 2, 3, 4)),
    "told twice": (
        [Begun(at(0)), m(1), Resumed(at(1), at(3), False), Gapped("a", 4, 4, "expired")],
        acks(1, 2, 3, 4),
    ),
    "another epoch": (
        [Begun(at(0)), m(1), Gapped("b", 3, 3, "epoch"), m(4, "b")],
        [*acks(1, 2), *acks(3, 4, epoch="b")],
    ),
    "another epoch, nothing in it yet": (
        [Begun(at(0)), m(1), Resumed(at(1), at(0, "b"), False), m(1, "b")],
        [*acks(1, 2), *acks(1, epoch="b")],
    ),
    "an epoch that was never seen": (
        [Begun(at(0)), m(1), Gapped("c", 1, 1, "epoch"), m(2, "c")],
        [*acks(1), *acks(1, 2, epoch="b"), *acks(1, 2, epoch="c")],
    ),
    "not acknowledged but there": ([Begun(at(0)), m(1), m(2, data="tried"), m(3), m(4)], acks(1, 3, 4)),
}


@pytest.mark.parametrize("name", FINE)
def test_the_promise_kept(name: str) -> None:
    account, acknowledged = FINE[name]
    assert held(account, acknowledged).complaints == []


BROKEN: dict[str, tuple[list[Event], str]] = {
    "a hole": ([Begun(at(0)), m(1), m(2), m(4)], "silent loss"),
    "the last missing": ([Begun(at(0)), m(1), m(2), m(3)], "never got a4"),
    "all missing": ([Begun(at(0))], "never got a1"),
    "the first missing": ([Begun(at(0)), m(2), m(3), m(4)], "silent loss"),
    "twice": ([Begun(at(0)), m(1), m(2), m(2), m(3), m(4)], "duplicate"),
    "twice, later": ([Begun(at(0)), m(1), m(2), m(3), m(4), m(1)], "duplicate"),
    "twice at two offsets": ([Begun(at(0)), m(1), m(2, data="tried"), m(3, data="tried"), m(4)], "doubled"),
    "turned round": ([Begun(at(0)), m(1), m(3), m(2), m(4)], "out of order"),
    "a gap that arrives after all": ([Begun(at(0)), m(1), Gapped("a", 2, 2, "x"), m(2), m(3), m(4)], "false gap"),
    "a gap over what came": ([Begun(at(0)), m(1), m(2), m(3), Gapped("a", 3, 3, "x"), m(4)], "false gap"),
    "a gap too late": ([Begun(at(0)), m(1), Gapped("a", 3, 3, "x"), m(4)], "silent loss"),
    "an empty gap": ([Begun(at(0)), m(1), m(2), Gapped("a", 3, 2, "x"), m(3), m(4)], "false gap"),
    "a gap too short": ([Begun(at(0)), m(1), Gapped("a", 2, 2, "x"), m(4)], "never got a3"),
    "an epoch without a word": ([Begun(at(0, "z")), m(1), m(2), m(3), m(4)], "no gap told"),
    "left in an old epoch": ([Begun(at(0, "z"))], "never heard of a:4"),
    "a false recovery": ([Begun(at(0)), m(1), Resumed(at(1), at(4), True), m(4)], "silent loss"),
    "recovered into another epoch": ([Begun(at(0, "z")), Resumed(at(0, "z"), at(4), True)], "nothing is missing"),
    "not where it stood": ([Begun(at(0)), m(1), Resumed(at(3), at(3), True), m(4)], "asked to go on after a:3"),
    "began twice": ([Begun(at(0)), m(1), Begun(at(2)), m(3), m(4)], "began anew"),
    "another text": ([Begun(at(0)), m(1), m(2, data="tried"), m(3), m(4)], "acknowledged for a2"),
    "an invention": ([Begun(at(0)), m(1), m(2), m(3), m(4), m(5)], "nobody published"),
    "before it began": ([m(1), Begun(at(1)), m(2), m(3), m(4)], "before it had begun"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_promise_broken(name: str) -> None:
    account, complaint = BROKEN[name]
    assert complaint in "\n".join(held(account).complaints)


def test_acknowledgements_that_contradict_each_other_are_seen() -> None:
    twice = [Acknowledged(at(1), "one"), Acknowledged(at(1), "two"), Acknowledged(at(2), "one")]
    complaints = judge(twice, ["one", "two"], {}).complaints
    assert complaints == [
        "a:1 was acknowledged for one and for two",
        "one was acknowledged at a:1 and at a:2",
    ]


def test_what_was_seen_is_counted_over_all_accounts() -> None:
    accounts: dict[str, list[Event]] = {
        "one": [Begun(at(0)), m(1), m(2), m(3), m(4)],
        "two": [Begun(at(0)), m(1), Gapped("a", 2, 4, "slow")],
        "three": [Begun(at(0)), m(1), Gapped("b", 1, 1, "epoch"), m(2, "b", "a1")],
    }
    acknowledged = acks(1, 2, 3, 4)
    verdict = judge(acknowledged, ["a1", "a2", "a3", "a4"], accounts)
    assert (verdict.received, verdict.gaps, verdict.excused, verdict.again) == (7, 2, 6, 1)
    assert str(verdict) == "7 received, 2 gaps, 6 excused, 1 again"
