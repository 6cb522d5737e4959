"""Revocations: what they cover, for how long, and that a verifier refuses what they name."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.auth.revocations import FORGET_S, Revocation, Revocations
from notifyd.auth.tokens import Signer, Verifier
from notifyd.errors import Unauthorized
from notifyd.model import ANONYMOUS, Identity
from tests.reliability.tokens import good_claims, make_key_ring, make_token

NOW_S = 1_790_000_000.5
UNTIL_S = NOW_S + 3600


def of_user(user: str = "ann", before_s: float = NOW_S, until_s: float = UNTIL_S) -> Revocation:
    return Revocation(user=user, before_s=before_s, until_s=until_s)


def of_token(token_id: str = "t1", until_s: float = UNTIL_S) -> Revocation:
    return Revocation(token_id=token_id, until_s=until_s)


def identity(user: str = "ann", token_id: str | None = None, issued_s: float | None = NOW_S - 10) -> Identity:
    return Identity(user=user, token_id=token_id, issued_s=issued_s)


@pytest.mark.parametrize(
    ("revocation", "held", "is_covered"),
    [
        (of_token(), identity(token_id="t1"), True),
        (of_token(), identity("bob", token_id="t1"), True),
        (of_token(), identity(token_id="t1", issued_s=NOW_S + 10), True),
        (of_token(), identity(token_id="t2"), False),
        (of_token(), identity(), False),
        (of_token(""), identity(), False),
        (of_user(), identity(), True),
        (of_user(), identity(token_id="t1"), True),
        (of_user(), identity(issued_s=None), True),
        (of_user(), identity(issued_s=int(NOW_S)), True),
        (of_user(), identity(issued_s=int(NOW_S) + 1), False),
        (of_user(), identity("bob"), False),
        (of_user("Ann"), identity("ann"), False),
        (of_user(""), ANONYMOUS, False),
        (of_token(""), ANONYMOUS, False),
        (of_user(), Identity("ann", operator=True), True),
        (of_user("$operator"), Identity("$operator", operator=True, api_key=b"digest"), False),
        (Revocation(until_s=UNTIL_S), ANONYMOUS, False),
    ],
)
def test_what_a_revocation_covers(revocation: Revocation, held: Identity, is_covered: bool) -> None:
    assert revocation.covers(held) is is_covered
    known = Revocations()
    known.add(revocation)
    assert known.covers(held, NOW_S) is is_covered


def test_it_holds_until_its_time_is_over() -> None:
    for revocation in (of_user(), of_token()):
        known = Revocations()
        known.add(revocation)
        held = identity(token_id="t1")
        assert known.covers(held, UNTIL_S - 0.001)
        assert known.in_force(UNTIL_S - 0.001) == [revocation]
        assert known.in_force(UNTIL_S) == []
        assert not known.covers(held, UNTIL_S)


def test_a_second_one_never_makes_the_first_narrower() -> None:
    known = Revocations()
    wide = of_user(before_s=NOW_S, until_s=UNTIL_S)
    for narrower in (wide, of_user(before_s=NOW_S - 50), of_user(before_s=NOW_S - 1, until_s=NOW_S + 1)):
        known.add(narrower)
    assert list(known) == [wide]
    known.add(of_user(before_s=NOW_S - 50, until_s=UNTIL_S + 1))
    assert list(known) == [of_user(before_s=NOW_S, until_s=UNTIL_S + 1)]
    known.add(of_token(until_s=UNTIL_S))
    known.add(of_token(until_s=NOW_S))
    assert of_token(until_s=UNTIL_S) in list(known)


def test_one_that_names_nothing_is_none() -> None:
    known = Revocations()
    known.add(Revocation(until_s=UNTIL_S))
    assert len(known) == 0


def test_they_are_listed_by_kind_in_the_order_they_came() -> None:
    known = Revocations()
    for one in (of_user("b"), of_token("2"), of_user("a"), of_token("1"), of_user("b", until_s=UNTIL_S + 1)):
        known.add(one)
    assert [one.token_id or one.user for one in known.in_force(NOW_S)] == ["2", "1", "b", "a"]


def test_those_whose_time_is_over_are_forgotten_as_tokens_are_verified() -> None:
    known = Revocations()
    assert not known.covers(identity("nobody"), NOW_S)
    for number in range(1000):
        known.add(of_token(f"t{number}", until_s=NOW_S + number))
        known.add(of_user(f"u{number}", until_s=NOW_S + number))
    known.covers(identity("nobody"), NOW_S)
    known.covers(identity("nobody"), NOW_S + FORGET_S - 0.1)
    assert len(known) == 1998  # the two whose time was over at once
    known.covers(identity("nobody"), NOW_S + 1000)
    assert len(known) == 0


def test_a_clock_that_was_set_back_forgets_nothing_that_holds() -> None:
    known = Revocations()
    known.add(of_token())
    assert not known.covers(identity("nobody"), UNTIL_S - 1)
    assert known.covers(identity(token_id="t1"), NOW_S - 10**6)
    assert known.covers(identity(token_id="t1"), NOW_S)


NAMES = st.sampled_from(["a", "b"])
TIMES_S = st.integers(0, 6).map(float)
GIVEN = st.lists(
    st.builds(Revocation, user=NAMES, before_s=TIMES_S, until_s=TIMES_S)
    | st.builds(Revocation, token_id=NAMES, until_s=TIMES_S),
    max_size=8,
)
HELD = st.builds(identity, NAMES, st.none() | NAMES, st.none() | TIMES_S)


@given(GIVEN, HELD, TIMES_S)
def test_together_they_cover_at_least_what_each_covers(given_: list[Revocation], held: Identity, now_s: float) -> None:
    known = Revocations()
    for one in given_:
        known.add(one)
    each = any(now_s < one.until_s and one.covers(held) for one in given_)
    named = any(one.covers(held) or one.user == held.user for one in given_)
    assert each <= known.covers(held, now_s) <= named
    known.forget(now_s)
    assert each <= known.covers(held, now_s)


@given(GIVEN)
def test_a_revocation_survives_the_wire(given_: list[Revocation]) -> None:
    for one in given_:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Revocation) == one


# --- a verifier with revocations --------------------------------------------------------------------------------------


def verify(token: str, *revocations: Revocation, now_s: float = NOW_S) -> str:
    """Whom a token speaks for where these hold, or why it is refused."""
    known = Revocations()
    verifier = Verifier(make_key_ring().auth, lambda: now_s, known)
    for one in revocations:
        known.add(one)  # later than the verifier was made
    try:
        return verifier.verify(token).user
    except Unauthorized as refusal:
        return str(refusal)


def token(**changes: Any) -> str:
    return make_token(good_claims(int(NOW_S), **changes))


def test_a_verifier_refuses_what_is_revoked() -> None:
    refused = "the token was revoked"
    assert verify(token(jti="t1")) == "ann"
    assert verify(token(jti="t1"), of_token("t1")) == refused
    assert verify(token(jti="t2"), of_token("t1")) == "ann"
    assert verify(token(), of_user("ann")) == refused
    assert verify(token(iat=None), of_user("ann")) == refused
    assert verify(token(), of_user("bob")) == "ann"
    assert verify(token(iat=int(NOW_S) + 1), of_user("ann")) == "ann"
    assert verify(token(exp=None), of_user("ann"), now_s=UNTIL_S) == "ann"


def test_what_is_wrong_with_a_token_is_found_before() -> None:
    expired = token(jti="t1", exp=int(NOW_S) - 1)
    assert verify(expired, of_token("t1")) == "the token has expired"
    forged = token(jti="t1")[:-4] + "AAAA"
    assert verify(forged, of_token("t1")) == "no configured key made this signature"


def test_a_signer_names_a_token() -> None:
    auth = make_key_ring().auth
    verifier = Verifier(auth, lambda: NOW_S)
    signer = Signer(auth, "HS512")
    assert verifier.verify(signer.sign("ann", now_s=NOW_S, token_id="t1")).token_id == "t1"
    assert verifier.verify(signer.sign("ann", now_s=NOW_S)).token_id is None
