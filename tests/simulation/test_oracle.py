"""The oracle by itself: it says nothing while all is well, and names each promise when it is broken."""

from collections.abc import Callable

import pytest

from tests.simulation.oracle import Oracle

A, B = "epoch-a", "epoch-b"
Act = Callable[[Oracle], None]


def heard(*offsets: int, epoch: str = A) -> Act:
    """The subscriber gets these messages."""

    def act(oracle: Oracle) -> None:
        for offset in offsets:
            oracle.deliver("c", "t", (epoch, offset), f"{epoch}-{offset}")

    return act


def accepted(*offsets: int, epoch: str = A) -> Act:
    """Redis accepts these messages, and their publisher is told."""

    def act(oracle: Oracle) -> None:
        for offset in offsets:
            data = f"{epoch}-{offset}"
            oracle.attempt(data)
            oracle.append("t", (epoch, offset), data)
            oracle.acknowledge("p", "t", (epoch, offset), data)

    return act


def subscribed(since: object, told: int, recovered: bool | None = None, epoch: str = A) -> Act:
    return lambda oracle: oracle.subscribe("c", "t", since, (epoch, told), recovered)


def resumed(told: int, recovered: bool | None, since: int | None, acked: int | None = None, epoch: str = A) -> Act:
    def act(oracle: Oracle) -> None:
        places = ((A, place) if place is not None else None for place in (since, acked))
        oracle.resume(oracle.listening("c", "t"), (epoch, told), recovered, *places)

    return act


def gap(first: int, last: int, reason: str = "expired", epoch: str = A) -> Act:
    return lambda oracle: oracle.gap(oracle.listening("c", "t"), epoch, first, last, reason)


def losing(oracle: Oracle) -> None:
    oracle.may_lose = True


def short(oracle: Oracle) -> None:
    oracle.keeps["t"] = 2


def whole(newest: int, epoch: str = A) -> Act:
    return lambda oracle: oracle.judge_whole("c", "t", (epoch, newest))


def unechoed(offset: int) -> Act:
    return lambda oracle: oracle.listening("c", "t").unechoed.add(f"{A}-{offset}")


def plain(data: str) -> Act:
    return lambda oracle: oracle.deliver("c", "t", None, data)


def given(offset: int, data: str) -> Act:
    return lambda oracle: oracle.deliver("c", "t", (A, offset), data)


LATEST = subscribed("latest", 0)

WELL: dict[str, list[Act]] = {
    "in order": [LATEST, accepted(1, 2, 3), heard(1, 2, 3), whole(3)],
    "from the middle": [accepted(1, 2), subscribed("latest", 2), accepted(3), heard(3), whole(3)],
    "the earliest that is kept": [short, accepted(1, 2, 3), subscribed("earliest", 3, False), heard(2, 3), whole(3)],
    "recovered": [LATEST, accepted(1, 2, 3), heard(1), subscribed((A, 1), 3, True), heard(2, 3), whole(3)],
    "not recovered, and said so": [
        short,
        accepted(1, 2, 3, 4),
        subscribed((A, 1), 4, False),
        accepted(5),
        heard(5),
        whole(5),
    ],
    "a gap names what is trimmed": [short, LATEST, accepted(1, 2, 3, 4, 5), heard(1), gap(2, 3), heard(4, 5), whole(5)],
    "a new epoch is told": [
        losing,
        LATEST,
        accepted(1, 2),
        heard(1, 2),
        gap(1, 2, "epoch", B),
        accepted(3, epoch=B),
        heard(3, epoch=B),
    ],
    "what is not acknowledged comes again": [
        LATEST,
        accepted(1, 2, 3),
        heard(1, 2, 3),
        resumed(3, True, None, acked=1),
        heard(2, 3),
        accepted(4),
        heard(4),
        whole(4),
    ],
    "resumed by position": [LATEST, accepted(1, 2), heard(1), resumed(2, True, 1), heard(2), whole(2)],
    "resumed with a gap": [
        short,
        LATEST,
        accepted(1, 2, 3, 4),
        heard(1),
        resumed(4, False, 1),
        gap(2, 4),
        accepted(5),
        heard(5),
    ],
    "an own message left out": [LATEST, accepted(1, 2), unechoed(1), heard(2), whole(2)],
    "a message lost and accepted again": [
        losing,
        accepted(1),
        lambda oracle: oracle.lose("t", {}),
        lambda oracle: oracle.append("t", (B, 1), f"{A}-1"),
    ],
    "a message accepted again by a server that was replaced": [
        LATEST,
        accepted(1),
        lambda oracle: oracle.append("t", (B, 1), f"{A}-1", in_vain=True),
        heard(1),
        whole(1),
    ],
    "nothing to come after what only the server knows": [
        LATEST,
        accepted(1, 2),
        heard(1),
        resumed(2, True, None),
        whole(2),
    ],
    "an own message left out after it": [
        LATEST,
        accepted(1, 2),
        heard(1),
        resumed(2, True, None),
        accepted(3),
        unechoed(3),
        whole(3),
    ],
    "the earliest of nothing": [subscribed("earliest", 0, True), whole(0)],
    "the earliest of an epoch that only goes on counting": [subscribed("earliest", 5, True, B), whole(5, B)],
    "without positions": [lambda oracle: oracle.attempt("x"), LATEST, plain("x")],
}


@pytest.mark.parametrize("story", WELL)
def test_what_is_well_is_not_complained_of(story: str) -> None:
    oracle = Oracle()
    for act in WELL[story]:
        act(oracle)
    assert oracle.broken == []


BROKEN: dict[str, tuple[str, list[Act]]] = {
    "a loss": ("nothing is lost silently", [LATEST, accepted(1, 2), heard(2)]),
    "a loss behind a recovery": (
        "nothing is lost silently",
        [accepted(1, 2, 3), subscribed((A, 1), 3, True), heard(3)],
    ),
    "a loss at the end": ("after the faults everybody is made whole", [LATEST, accepted(1, 2), heard(1), whole(2)]),
    "a loss where only the server knows what was sent": (
        "after the faults everybody is made whole",
        [LATEST, accepted(1, 2), heard(1), resumed(2, True, None), accepted(3), whole(3)],
    ),
    "a loss told when resumed, and never named": (
        "after the faults everybody is made whole",
        [short, LATEST, accepted(1, 2, 3, 4), heard(1), resumed(4, False, None), whole(4)],
    ),
    "the earliest, and nothing comes": (
        "after the faults everybody is made whole",
        [accepted(1, 2), subscribed("earliest", 2, True), whole(2)],
    ),
    "a duplicate": ("a message comes once, in order", [LATEST, accepted(1), heard(1, 1)]),
    "the wrong order": ("a message comes once, in order", [LATEST, accepted(1, 2, 3), heard(1, 2, 3), heard(2)]),
    "a duplicate of what was acknowledged": (
        "a message comes once, in order",
        [LATEST, accepted(1, 2), heard(1, 2), resumed(2, True, None, acked=1), heard(1)],
    ),
    "a duplicate after a resumption by position": (
        "a message comes once, in order",
        [LATEST, accepted(1, 2), heard(1, 2), resumed(2, True, 2), heard(2)],
    ),
    "recovered without proof": ("recovered is only said with proof", [subscribed((A, 1), 3, True, epoch=B)]),
    "recovered from the future": ("recovered is only said with proof", [subscribed((A, 7), 3, True)]),
    "not recovered without need": ("what is kept is recovered", [accepted(1, 2), subscribed((A, 1), 2, False)]),
    "a silent gap": (
        "a loss is told",
        [short, LATEST, accepted(1, 2, 3, 4), heard(1), resumed(4, False, 1), accepted(5), heard(5)],
    ),
    "a gap that names too little": (
        "nothing is lost silently",
        [short, LATEST, accepted(1, 2, 3, 4, 5), heard(1), gap(3, 3)],
    ),
    "a gap of nothing": ("a gap names what is missing", [LATEST, accepted(1), heard(1), gap(2, 1)]),
    "a gap that blames a failover": (
        "a gap tells the reason",
        [short, LATEST, accepted(1, 2, 3, 4, 5), heard(1), gap(2, 3, "epoch")],
    ),
    "a gap that hides a new epoch": (
        "a new epoch is told",
        [losing, LATEST, accepted(1), heard(1), gap(1, 1, "expired", B)],
    ),
    "a gap over what is kept": ("what is kept is delivered", [LATEST, accepted(1, 2), gap(1, 1)]),
    "a silent epoch": (
        "a new epoch is told",
        [losing, LATEST, accepted(1), heard(1), accepted(1, epoch=B), heard(1, epoch=B)],
    ),
    "an epoch out of nothing": ("an epoch lasts", [LATEST, gap(1, 1, "epoch", B)]),
    "a place given twice": (
        "a position means one message",
        [accepted(1), lambda oracle: oracle.acknowledge("q", "t", (A, 1), "other")],
    ),
    "an acknowledgement of nothing": (
        "what is acknowledged was accepted",
        [lambda oracle: oracle.acknowledge("p", "t", (A, 1), "x")],
    ),
    "a key forgotten": (
        "a message with a key is accepted once",
        [accepted(1), lambda oracle: oracle.append("t", (A, 2), f"{A}-1")],
    ),
    "a key delivered twice": (
        "a message with a key comes once",
        [lambda oracle: oracle.attempt("x"), LATEST, *(given(offset, "x") for offset in (1, 2))],
    ),
    "a message made up": ("nothing is made up", [LATEST, heard(1)]),
    "a message after the end": (
        "nothing comes after unsubscribed",
        [LATEST, accepted(1), lambda oracle: oracle.close("c", "t"), heard(1)],
    ),
    "an echo": ("a message comes once", [lambda oracle: oracle.attempt("x"), LATEST, plain("x"), plain("x")]),
    "a history with a hole": (
        "a history has no holes",
        [accepted(1, 2, 3), lambda oracle: oracle.read("c", "t", [((A, 1), f"{A}-1"), ((A, 3), f"{A}-3")])],
    ),
    "a ghost": ("presence converges", [lambda oracle: oracle.judge_presence("c", "t", {"a", "ghost"}, {"a"})]),
    "somebody missing": ("presence converges", [lambda oracle: oracle.judge_presence("c", "t", set(), {"a"})]),
    "deaf at the end": (
        "after the faults everybody is made whole",
        [LATEST, lambda oracle: oracle.judge_heard("c", "t", "x")],
    ),
}


@pytest.mark.parametrize("story", BROKEN)
def test_what_is_broken_is_named(story: str) -> None:
    promise, acts = BROKEN[story]
    oracle = Oracle()
    for act in acts:
        act(oracle)
    assert promise in {one.promise for one in oracle.broken}
