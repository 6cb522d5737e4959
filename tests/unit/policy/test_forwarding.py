"""Whose address a proxied connection has: believed from trusted proxies only, whatever strangers write."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.policy.forwarding import FORWARDING_HEADERS, UNKNOWN, client_of, ip_of, is_among, is_local
from notifyd.settings import Network

TRUSTED = (Network("10.0.0.0/8"), Network("::1"))
PROXY = "10.0.0.1:4711"
STRANGER = "203.0.113.7:4711"
STRANGERS = st.ip_addresses().filter(lambda address: not is_among(str(address), TRUSTED)).map(str)
PROXIES = st.ip_addresses(v=4, network="10.0.0.0/8").map(str)
ANY_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
        ("::", "::"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert ip_of(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "a.example:80", "1.2.3", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "[::1", "[1.2.3.4]x"],
)
def test_not_addresses(text: str) -> None:
    assert ip_of(text) is None
    assert not is_among(text, (Network("0.0.0.0/0"), Network("::/0")))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["203.0.113.7"], "203.0.113.7"),
        (PROXY, ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (PROXY, ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (PROXY, ["1.1.1.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (PROXY, ["1.1.1.1,203.0.113.7 ,\t10.9.9.9:80 , , [::1]:1"], "203.0.113.7"),
        (PROXY, ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXY, ["203.0.113.7:1234"], "203.0.113.7"),
        (PROXY, ["[2001:DB8::1]:1234"], "2001:db8::1"),
        (PROXY, ["127.0.0.1, unknown"], UNKNOWN),
        (PROXY, ["10.0.0.1, fe80::1%<b>"], UNKNOWN),
        ("[::1]:80", ["203.0.113.7"], "203.0.113.7"),
        ("[::ffff:10.0.0.1]:80", ["203.0.113.7"], "203.0.113.7"),
        (STRANGER, ["127.0.0.1"], STRANGER),
        ("unknown", ["127.0.0.1"], "unknown"),
    ],
)
def test_the_client_is_who_nobody_trusted_wrote_last(peer: str, forwarded_for: list[str], client: str) -> None:
    assert client_of(peer, forwarded_for, TRUSTED) == client


@given(STRANGERS, st.lists(ANY_TEXT), st.lists(PROXIES, max_size=4), PROXIES)
def test_nothing_that_a_client_writes_changes_what_is_known(
    client: str, written: list[str], hops: list[str], proxy: str
) -> None:
    honest = [*written, client, *hops]  # each proxy appends whom it was connected from
    assert client_of(proxy, [", ".join(honest)], TRUSTED) == str(ip_of(client))
    assert client_of(proxy, honest, TRUSTED) == str(ip_of(client))


@given(st.one_of(STRANGERS, ANY_TEXT), st.lists(ANY_TEXT))
def test_strangers_are_not_believed(peer: str, forwarded_for: list[str]) -> None:
    if not is_among(peer, TRUSTED):
        assert client_of(peer, forwarded_for, TRUSTED) == peer
    assert client_of(peer, forwarded_for, ()) == peer


@pytest.mark.parametrize("peer", ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"])
def test_a_request_without_signs_of_a_proxy_is_local_from_loopback(peer: str) -> None:
    assert is_local(peer, ["host", "accept"], [], ())
    for name in FORWARDING_HEADERS:
        assert not is_local(peer, ["host", name], ["127.0.0.1"], ())


@pytest.mark.parametrize("peer", [PROXY, STRANGER, "unknown", "localhost:80", ""])
def test_any_other_is_not(peer: str) -> None:
    assert not is_local(peer, [], [], TRUSTED)


def test_behind_a_trusted_proxy_its_client_counts() -> None:
    assert is_local("[::1]:80", ["x-forwarded-for"], ["127.0.0.1"], TRUSTED)
    assert is_local("[::1]:80", ["x-forwarded-for"], ["203.0.113.7, 127.0.0.1"], TRUSTED)
    assert not is_local("[::1]:80", ["x-forwarded-for"], ["127.0.0.1, 203.0.113.7"], TRUSTED)
    assert not is_local("[::1]:80", ["x-forwarded-for"], ["unknown"], TRUSTED)
    assert not is_local("[::1]:80", ["via"], [], TRUSTED), "it does not say for whom"


@pytest.mark.parametrize(
    ("peer", "forwarded_for"),
    [
        (PROXY, "127.0.0.1"),  # of its own machine
        ("[::1]:80", "127.0.0.1, 10.5.5.5"),  # a machine of the network wrote the first itself
        ("[::1]:80", "127.0.0.1, 10.5.5.5, ::1"),
        ("[::1]:80", "::1, 10.5.5.5"),
    ],
)
def test_no_other_machine_speaks_for_this_one_though_it_is_trusted(peer: str, forwarded_for: str) -> None:
    assert not is_local(peer, ["x-forwarded-for"], [forwarded_for], TRUSTED)
