"""Row 16: hostile tokens. None accepted, every good one accepted, at most 5 ms of CPU each, one answer for all."""

import socket
import time

import pytest

from notifyd.auth.tokens import Verifier
from notifyd.errors import Unauthorized
from tests.reliability.tokens import (
    AUDIENCE,
    good_claims,
    good_tokens,
    hostile_tokens,
    make_key_ring,
    make_token,
)

NOW_S = 1_790_000_000
CPU_LIMIT_S = 0.005

HOSTILE = hostile_tokens(NOW_S)
GOOD = good_tokens(NOW_S)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(make_key_ring().auth, lambda: NOW_S)


def cpu_s(verifier: Verifier, token: str) -> float:
    """The least of three, since the machine is shared."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(Unauthorized):
            verifier.verify(token)
        spent.append(time.process_time() - start)
    return min(spent)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 60
    assert len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused(name: str, verifier: Verifier) -> None:
    token = HOSTILE[name]
    with pytest.raises(Unauthorized) as refusal:
        verifier.verify(token)
    assert type(refusal.value) is Unauthorized
    assert refusal.value.__cause__ is None
    assert cpu_s(verifier, token) <= CPU_LIMIT_S


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_accepted(name: str, verifier: Verifier) -> None:
    assert verifier.verify(GOOD[name]).user


def test_no_refusal_quotes_the_token(verifier: Verifier) -> None:
    marker = "mark" * 5
    claims = good_claims(NOW_S, **{marker: marker})
    hostile = [
        make_token(claims, kid=marker),
        make_token(claims | {"sub": marker * 40}),
        make_token(claims | {"iss": marker}),
        make_token(claims | {"subscribe": [marker + ":**:" + marker]}),
        make_token(claims | {"topics": [marker + " "]}),
        marker,
    ]
    for token in hostile:
        with pytest.raises(Unauthorized) as refusal:
            verifier.verify(token)
        assert marker not in str(refusal.value)


def test_nobody_is_called(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a token made the verifier open a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for token in HOSTILE.values():
        with pytest.raises(Unauthorized):
            verifier.verify(token)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "PS256", "ES256", "ES512", "EdDSA"])
def test_no_flipped_bit_gets_through(algorithm: str, verifier: Verifier) -> None:
    good = make_token(good_claims(NOW_S), algorithm)
    assert verifier.verify(good).user == "ann"
    for place in range(len(good)):
        for bit in range(7):
            flipped = good[:place] + chr(ord(good[place]) ^ (1 << bit)) + good[place + 1 :]
            with pytest.raises(Unauthorized):
                verifier.verify(flipped)


def test_our_audience_in_a_list_of_others_is_ours(verifier: Verifier) -> None:
    assert verifier.verify(make_token(good_claims(NOW_S, aud=["a", AUDIENCE, "b"]))).user == "ann"
