"""Keys, claims and signing. Hostile tokens are in tests/reliability/test_row_16_tokens.py."""

import json
import string
import warnings

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifyd.auth.compact import read_token
from notifyd.auth.tokens import Signer, Verifier
from notifyd.errors import NotifydError, Unauthorized
from notifyd.settings import AuthSettings, Secret, TokenKey
from protocol.topics import Pattern
from tests.reliability.tokens import good_claims, make_key_ring, make_part, make_token, public_pem, sign_parts

NOW_S = 1_790_000_000
OLD = TokenKey(algorithm="HS256", secret=Secret("old" * 20), kid="old")
NEW = TokenKey(algorithm="HS512", secret=Secret("new" * 30), kid="new")
NAMELESS = TokenKey(algorithm="HS512", secret=Secret("nameless" * 10))


def verifier(*keys: TokenKey, now_s: float = NOW_S, **auth: object) -> Verifier:
    return Verifier(AuthSettings(keys=keys, **auth), lambda: now_s)  # type: ignore[arg-type]


def signed(key: TokenKey, claims: object = None, **header: object) -> str:
    assert key.secret is not None
    assert key.algorithm is not None
    members = {"alg": key.algorithm} | header
    return sign_parts(
        make_part(members),
        make_part({"sub": "ann"} if claims is None else claims),
        key.algorithm,
        key.secret.key_bytes(),
    )


def refused(by: Verifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refusal:
        by.verify(token)
    return str(refusal.value)


def test_a_token_with_a_kid_needs_that_key() -> None:
    both = verifier(OLD, NEW, NAMELESS)
    assert both.verify(signed(OLD, kid="old")).user == "ann"
    assert both.verify(signed(NEW, kid="new")).user == "ann"
    for token in (
        signed(NEW, kid="old"),
        signed(OLD, kid="new"),
        signed(NEW, kid="other"),
        signed(NAMELESS, kid="new"),
    ):
        assert refused(both, token) == "no configured key made this signature"


def test_a_token_without_a_kid_is_tried_against_the_keys_of_its_algorithm() -> None:
    both = verifier(OLD, NEW, NAMELESS)
    assert both.verify(signed(OLD)).user == "ann"
    assert both.verify(signed(NEW)).user == "ann"
    assert both.verify(signed(NAMELESS)).user == "ann"
    assert refused(verifier(OLD), signed(NEW))


def test_no_key_no_token() -> None:
    assert refused(verifier(), signed(OLD)) == "no configured key made this signature"


def test_everything_a_token_says() -> None:
    claims = good_claims(NOW_S, subscribe=["a:*"], publish=["b", "**"], topics=["a:1"], jti="t")
    identity = Verifier(make_key_ring().auth, lambda: NOW_S).verify(make_token(claims))
    assert identity.user == "ann"
    assert not identity.anonymous
    assert identity.subscribe == (Pattern("a:*"),)
    assert identity.publish == (Pattern("b"), Pattern("**"))
    assert identity.topics == ("a:1",)
    assert identity.expires_s == NOW_S + 600
    assert identity.token_id == "t"


def test_a_token_that_says_little() -> None:
    identity = verifier(NEW).verify(signed(NEW))
    assert (identity.subscribe, identity.publish, identity.topics) == ((), (), ())
    assert (identity.expires_s, identity.token_id) == (None, None)


def test_leeway_moves_both_ends() -> None:
    expired, early = signed(NEW, {"sub": "a", "exp": NOW_S - 4}), signed(NEW, {"sub": "a", "nbf": NOW_S + 4})
    patient = verifier(NEW, leeway_s=5.0)
    assert patient.verify(expired).expires_s == NOW_S + 1
    assert patient.verify(early).user == "a"
    assert refused(verifier(NEW), expired) == "the token has expired"
    assert refused(verifier(NEW), early) == "the token is not valid yet"
    assert refused(verifier(NEW, leeway_s=4.0), expired)
    assert verifier(NEW, leeway_s=4.0).verify(early).user == "a"


def test_issuer_and_audience_are_not_checked_where_none_is_configured() -> None:
    token = signed(NEW, {"sub": "a", "iss": "anybody", "aud": ["anything"]})
    assert verifier(NEW).verify(token).user == "a"
    assert refused(verifier(NEW, issuer="me"), token) == "the token is from another issuer"
    assert refused(verifier(NEW, audience="me"), token) == "the token is for another audience"
    assert verifier(NEW, audience="anything", issuer="anybody").verify(token).user == "a"
    for claims in ({"iss": 7}, {"aud": 7}, {"aud": [7]}):
        assert refused(verifier(NEW), signed(NEW, {"sub": "a"} | claims))


@given(st.text(string.ascii_letters + "0123456789-_.=", max_size=60) | st.text(max_size=60))
@example("a.b.c")
@example("YQ.YR.YQ")
@example("A.A.A")
def test_any_text_is_refused_with_the_one_error(text: str) -> None:
    assert refused(verifier(NEW, NAMELESS), text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "jti", "subscribe", "publish", "topics", "other"])


@given(
    st.dictionaries(NAMES, JSON_VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["typ", "kid", "cty"]), JSON_VALUES),
)
def test_any_signed_claims_are_accepted_or_refused_with_the_one_error(
    claims: dict[str, object], header: dict[str, object]
) -> None:
    token = signed(NEW, json.dumps({"sub": "ann"} | claims), **header)
    try:
        identity = verifier(NEW).verify(token)
    except Unauthorized:
        return
    assert identity.user == ({"sub": "ann"} | claims)["sub"]


@given(st.integers(0, 2**40), st.integers(-(10**6), 10**6))
def test_a_token_holds_until_its_end_and_no_longer(expires_s: int, difference_s: int) -> None:
    token = signed(NEW, {"sub": "a", "exp": expires_s})
    by = verifier(NEW, now_s=expires_s + difference_s)
    if difference_s < 0:
        assert by.verify(token).expires_s == expires_s
    else:
        assert refused(by, token) == "the token has expired"


def test_a_token_as_long_as_allowed_is_read() -> None:
    claims = {"sub": "ann", "x": "x" * 11_000}
    assert verifier(NEW).verify(signed(NEW, claims)).user == "ann"
    assert refused(verifier(NEW), signed(NEW, claims | {"x": "x" * 13_000})) == "the token is too long"


def test_read_token_believes_nothing_but_takes_it_apart() -> None:
    read = read_token(signed(NEW, kid="k"))
    assert (read.algorithm, read.kid, json.loads(read.payload)) == ("HS512", "k", {"sub": "ann"})
    assert len(read.signature) == 64


# --- signing -------------------------------------------------------------------------------------------------------


def test_what_is_signed_is_accepted() -> None:
    auth = AuthSettings(keys=(NEW, OLD), issuer="i", audience="a")
    token = Signer(auth).sign(
        "ann", now_s=NOW_S + 0.5, expires_in_s=60, subscribe=["a:*"], publish=["b"], topics=["c", "d"]
    )
    identity = Verifier(auth, lambda: NOW_S).verify(token)
    assert (identity.user, identity.expires_s, identity.topics) == ("ann", NOW_S + 61, ("c", "d"))
    assert (identity.subscribe, identity.publish) == ((Pattern("a:*"),), (Pattern("b"),))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["iat"]) == ("i", "a", NOW_S)
    assert jwt.get_unverified_header(token) == {"alg": "HS512", "typ": "JWT", "kid": "new"}


def test_a_short_signature_says_little() -> None:
    token = Signer(AuthSettings(keys=(NAMELESS,))).sign("ann", now_s=NOW_S)
    assert jwt.decode(token, options={"verify_signature": False}) == {"sub": "ann", "iat": NOW_S}
    assert "kid" not in jwt.get_unverified_header(token)


def test_the_key_to_sign_with() -> None:
    ring = make_key_ring()
    public = TokenKey(algorithm="ES256", public_key=public_pem(ring.private["ES256"]), kid="public")
    auth = AuthSettings(keys=(public, NAMELESS, OLD))
    assert "kid" not in jwt.get_unverified_header(Signer(auth).sign("ann", now_s=NOW_S))
    assert jwt.get_unverified_header(Signer(auth, "old").sign("ann", now_s=NOW_S))["kid"] == "old"
    with pytest.raises(NotifydError, match="public keys only verify"):
        Signer(auth, "public")
    with pytest.raises(NotifydError, match="no key has the kid 'x'; those that can sign: old"):
        Signer(auth, "x")
    with pytest.raises(NotifydError, match="no key can sign"):
        Signer(AuthSettings(keys=(public,)))
    with pytest.raises(NotifydError, match="those that can sign: none"):
        Signer(AuthSettings(), "x")


@pytest.mark.parametrize(
    ("user", "changes"),
    [
        ("", {}),
        ("x" * 256, {}),
        ("a\n", {}),
        ("a", {"subscribe": ["a:**:b"]}),
        ("a", {"topics": ["a:*"]}),
        ("a", {"publish": [""]}),
        ("a", {"expires_in_s": -1.0}),
    ],
)
def test_a_token_that_would_be_refused_is_not_signed(user: str, changes: dict[str, object]) -> None:
    with pytest.raises(Unauthorized):
        Signer(AuthSettings(keys=(NEW,))).sign(user, now_s=NOW_S, **changes)  # type: ignore[arg-type]


def test_signing_with_a_weak_secret_warns_nobody_here() -> None:
    weak = AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret("weak")),))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        token = Signer(weak).sign("ann", now_s=NOW_S)
    assert caught == []
    assert Verifier(weak, lambda: NOW_S).verify(token).user == "ann"
