"""PROXY headers: both versions, any cutting, and never a byte of what follows."""

from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifyd.settings import Address
from notifyd.transport.proxy_header import (
    LINE_BYTES,
    PROXY_HEADER_BYTES,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderReader,
)
from tests.unit.transport.proxy_headers import SIGNATURE, addresses, binary, extension, line, proxied

ENOUGH = 1 << 20
UNIX = b"/run/a.sock".ljust(108, b"\0") * 2

Outcome = tuple[ProxyHeader | str | None, int]


def outcome(data: bytes, sizes: Sequence[int] = ()) -> Outcome:
    """What the reader makes of a stream that arrives in pieces of these sizes, then whole, and how much of it it took.

    A piece is never larger than the reader wants, as a socket gives no more than it is asked for.
    """
    reader, taken = ProxyHeaderReader(), 0
    arriving = iter(sizes)
    while taken < len(data):
        assert reader.wanted_bytes > 0
        piece = data[taken : taken + min(reader.wanted_bytes, next(arriving, ENOUGH))]
        taken += len(piece)
        try:
            header = reader.receive(piece)
        except ProxyHeaderError as error:
            return str(error), taken
        if header is not None:
            return header, taken
    return None, taken


GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "1, IPv4": (line("203.0.113.7", 4711), ProxyHeader(Address("203.0.113.7", 4711))),
    "1, the shortest": (line("0.0.0.0", 0, "0.0.0.0", 0), ProxyHeader(Address("0.0.0.0", 0))),
    "1, IPv6": (line("2001:DB8:0::1", 65535), ProxyHeader(Address("2001:db8::1", 65535))),
    "1, mapped": (line("::ffff:1.2.3.4", 80), ProxyHeader(Address("1.2.3.4", 80))),
    "1, the longest": (
        line(":".join(["ffff"] * 8), 65535, ":".join(["ffff"] * 8), 65535),
        ProxyHeader(Address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    ),
    "1, unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    "1, unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", ProxyHeader()),
    "2, IPv4": (proxied("203.0.113.7", 4711), ProxyHeader(Address("203.0.113.7", 4711))),
    "2, IPv6": (proxied("2001:db8::1", 4711), ProxyHeader(Address("2001:db8::1", 4711))),
    "2, mapped": (proxied("::ffff:1.2.3.4", 80), ProxyHeader(Address("1.2.3.4", 80))),
    "2, with extensions": (
        proxied("1.2.3.4", 80, extension(1, b"h2") + extension(4, bytes(500))),
        ProxyHeader(Address("1.2.3.4", 80)),
    ),
    "2, the longest": (proxied("1.2.3.4", 80, bytes(PROXY_HEADER_BYTES - 28)), ProxyHeader(Address("1.2.3.4", 80))),
    "2, a Unix socket": (binary(1, 0x31, UNIX), ProxyHeader()),
    "2, unspecified": (binary(1, 0x00, b""), ProxyHeader()),
    "2, unspecified with a rest": (binary(1, 0x00, b"what?"), ProxyHeader()),
    "2, local": (binary(0, 0x00, b""), ProxyHeader(is_local=True)),
    "2, local with addresses": (binary(0, 0x11, addresses("1.2.3.4", 80)), ProxyHeader(is_local=True)),
    "2, local of any family": (binary(0, 0xFF, b"x"), ProxyHeader(is_local=True)),
}

BAD: dict[str, tuple[bytes, str]] = {
    "a frame": (b"HEAR\0" + bytes(11), "does not begin"),
    "a TLS hello": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500), "does not begin"),
    "a request": (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin"),
    "another with P": (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin"),
    "PROXY alone": (b"PROXY\r\nGET / HTTP/1.1\r\n\r\n", "does not begin"),
    "1, no family": (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", "not of the form"),
    "1, IPv6 as IPv4": (b"PROXY TCP4 ::1 ::1 1 1\r\n", "another kind"),
    "1, IPv4 as IPv6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", "another kind"),
    "1, a wrong target": (b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n", "another kind"),
    "1, zeros before": (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n", "another kind"),
    "1, a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "not of the form"),
    "1, a port too high": (line("1.2.3.4", 65536), "above 65535"),
    "1, the other port too high": (line("1.2.3.4", 1, "1.2.3.4", 99999), "above 65535"),
    "1, zeros before a port": (line("1.2.3.4", "01"), "not of the form"),
    "1, a sign": (line("1.2.3.4", "+1"), "not of the form"),
    "1, two spaces": (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", "not of the form"),
    "1, more behind": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "not of the form"),
    "1, a line feed alone": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n" + b"x" * 100, "longer than"),
    "1, no end": (b"PROXY UNKNOWN " + b"x" * 200, "longer than"),
    "1, an end too late": (b"PROXY UNKNOWN ".ljust(LINE_BYTES - 1, b"x") + b"\r\n", "longer than"),
    "1, lower case": (b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "does not begin"),
    "1, unknown and more": (b"PROXY UNKNOWNS\r\n", "not of the form"),
    "2, a version": (binary(1, 0x11, addresses("1.2.3.4", 80), version=1), "version 1 and command 1"),
    "2, a command": (binary(2, 0x11, addresses("1.2.3.4", 80)), "version 2 and command 2"),
    "2, datagrams": (binary(1, 0x12, addresses("1.2.3.4", 80)), "family 0x12"),
    "2, a family": (binary(1, 0x41, addresses("1.2.3.4", 80)), "family 0x41"),
    "2, no transport": (binary(1, 0x10, addresses("1.2.3.4", 80)), "family 0x10"),
    "2, too short for IPv4": (binary(1, 0x11, bytes(11)), "family 0x11 with 11 bytes"),
    "2, too short for IPv6": (binary(1, 0x21, bytes(35)), "family 0x21 with 35 bytes"),
    "2, too short for Unix": (binary(1, 0x31, bytes(215)), "family 0x31 with 215 bytes"),
    "2, too long": (proxied("1.2.3.4", 80, bytes(PROXY_HEADER_BYTES - 27)), "longer than 4096"),
    "2, longer than all": (binary(1, 0x11, bytes(12), announced=65535), "longer than 4096"),
    "2, local and too long": (binary(0, 0x00, b"", announced=65535), "longer than 4096"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_headers_are_read_whole_in_bytes_and_with_what_follows(name: str) -> None:
    data, header = GOOD[name]
    for tail in (b"", b"HEAR\0" + bytes(11), SIGNATURE, data, b"\r\n"):
        assert outcome(data + tail) == (header, len(data))
        assert outcome(data + tail, [1] * len(data)) == (header, len(data))
    for cut in range(len(data)) if len(data) < 300 else range(0, len(data), 97):
        assert outcome(data[:cut]) == (None, cut)


@pytest.mark.parametrize("name", BAD)
def test_what_is_none_is_refused(name: str) -> None:
    data, reason = BAD[name]
    told, taken = outcome(data)
    assert isinstance(told, str)
    assert reason in told
    assert taken <= PROXY_HEADER_BYTES
    assert isinstance(outcome(data, [1] * len(data))[0], str)


def test_what_cannot_become_a_header_is_refused_at_its_first_wrong_byte() -> None:
    for start in (SIGNATURE, b"PROXY "):
        for place in range(len(start)):
            reader = ProxyHeaderReader()
            with pytest.raises(ProxyHeaderError):
                reader.receive(start[:place] + b"!")


ports = st.integers(0, 65535)
ends = st.one_of(
    *(st.tuples(*[st.ip_addresses(v=version).map(str)] * 2, *[ports] * 2) for version in (4, 6))
)  # source, target, their ports
tails = st.binary(max_size=40)
cuttings = st.lists(st.integers(1, 40))


def canonical(address: str) -> str:
    return str(getattr(ip_address(address), "ipv4_mapped", None) or ip_address(address))


@given(ends, st.binary(max_size=300), tails, cuttings)
def test_every_address_comes_through_any_cutting(
    ends: tuple[str, str, int, int], extensions: bytes, tail: bytes, sizes: list[int]
) -> None:
    source, target, port, target_port = ends
    text = line(source, port, target, target_port)
    family = 0x21 if ":" in source else 0x11
    block = binary(1, family, addresses(source, port, target, target_port) + extensions)
    for data in (text, block):
        expected = ProxyHeader(Address(canonical(source), port)), len(data)
        assert outcome(data + tail, sizes) == expected


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """Bytes near a header: good ones cut, changed and lengthened, and binary ones of any command, family and length."""
    rest = draw(st.binary(max_size=60))
    data = bytearray(
        draw(
            st.one_of(
                st.sampled_from([data for data, _ in (*GOOD.values(), *BAD.values()) if len(data) < 400]),
                st.builds(binary, st.integers(0, 15), st.integers(0, 255), st.just(rest), announced=ports),
            )
        )
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(tails)


@settings(max_examples=4 * settings().max_examples)
@given(st.one_of(nearly(), st.binary(max_size=200)), cuttings)
@example(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n", [])
@example(b"PROXY UNKNOWN \r\n\r\n", [15, 1, 1])
def test_any_bytes_in_any_cutting_give_the_same(data: bytes, sizes: list[int]) -> None:
    whole, taken = outcome(data)
    in_pieces, taken_in_pieces = outcome(data, sizes)
    if isinstance(whole, str):  # how much of what is no header was looked at is nobody's business
        assert isinstance(in_pieces, str)
        assert max(taken, taken_in_pieces) <= PROXY_HEADER_BYTES
    else:
        assert (in_pieces, taken_in_pieces) == (whole, taken)
