from hypothesis import given
from hypothesis import strategies as st

from notifyd.auth.api_keys import ApiKeys
from notifyd.settings import Secret


@given(st.lists(st.text(min_size=1), max_size=4), st.text())
def test_it_holds_exactly_its_keys(keys: list[str], other: str) -> None:
    held = ApiKeys(Secret(key) for key in keys)
    assert all(held.holds(key) for key in keys)
    assert held.holds(other) is (other in keys)
    assert bool(held) is bool(keys)
    digests = {held.find(key) for key in keys}
    assert len(digests) == len(set(keys))
    assert all(digest is not None and held.holds_digest(digest) for digest in digests)
    assert (held.find(other) in digests) is (other in keys)


def test_nothing_presented_is_nothing_held() -> None:
    held = ApiKeys(["k", Secret("")])
    assert held.holds("k")
    assert not held.holds(None)
    assert not held.holds("")
    assert not held.holds("k ")
    assert not ApiKeys([]).holds("k")


def test_which_of_the_keys_it_is_counts_from_one() -> None:
    held = ApiKeys(["a", "b", "b"])
    assert [held.place_of(key) for key in ("a", "b", "c", "", None)] == [1, 2, None, None, None]


def test_half_a_character_is_no_key() -> None:
    assert not ApiKeys(["k"]).holds("\ud800")
