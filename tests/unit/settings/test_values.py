import base64
import json
import math
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.settings.values import (
    MAX_DURATION_S,
    MAX_SIZE_BYTES,
    Address,
    Network,
    Secret,
    Url,
    convert_value,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    shown,
)
from protocol.topics import Pattern


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("500ms", 0.5), ("1d", 86400), ("0s", 0), ("1h30m", 5400), ("1.5s", 1.5)],
)
def test_durations(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text",
    ["", "30", "s", "30 s", "-1s", "+1s", "1S", "1min", "1e3s", "٣s", "1s ", " 1s", "1.s", ".5s", "99999999999d"],
)
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as") as refusal:
        parse_duration(text)
    assert shown(text) in str(refusal.value)


@given(st.integers(0, int(MAX_DURATION_S) * 1000))
def test_every_millisecond_survives_a_round_trip(duration_ms: int) -> None:
    duration_s = parse_duration(f"{duration_ms}ms")
    assert math.isclose(parse_duration(format_duration(duration_s)), duration_s, abs_tol=1e-9)
    assert format_duration(parse_duration(format_duration(duration_s))) == format_duration(duration_s)


@pytest.mark.parametrize(
    ("duration_s", "text"), [(0, "0s"), (0.25, "250ms"), (90, "90s"), (300, "5m"), (7200, "2h"), (86400, "1d")]
)
def test_durations_are_written_short(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text


@pytest.mark.parametrize(
    ("value", "size_bytes"), [("64KiB", 65536), ("1MiB", 2**20), ("2GiB", 2**31), ("7B", 7), ("7", 7), (7, 7), (0, 0)]
)
def test_sizes(value: str | int, size_bytes: int) -> None:
    assert parse_size(value) == size_bytes


@pytest.mark.parametrize(
    "value",
    ["", "sixty", "64KB", "64 KiB", "64kib", "-1", "1.5MiB", "KiB", -1, True, 2**60, "9999999GiB", 1.0, []],
)
def test_not_sizes(value: object) -> None:
    with pytest.raises(ValueError, match='expected a size such as "64KiB", got '):
        parse_size(value)  # type: ignore[arg-type]


@given(st.integers(0, MAX_SIZE_BYTES))
def test_every_size_survives_a_round_trip(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


def test_sizes_are_written_short() -> None:
    assert [format_size(size) for size in (0, 1023, 1024, 2**20, 3 * 2**30)] == ["0B", "1023B", "1KiB", "1MiB", "3GiB"]


HOSTS = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?(\.[a-z]{2,5}){0,2}", fullmatch=True)
)


@given(HOSTS, st.integers(0, 65535))
def test_every_address_survives_a_round_trip(host: str, port: int) -> None:
    address = Address(host, port)
    assert Address.parse(str(address)) == address
    assert hash(Address.parse(str(address))) == hash(address)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7500", "127.0.0.1", 7500),
        ("[::1]:0", "::1", 0),
        ("localhost:80", "localhost", 80),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("a_b.example.:1", "a_b.example.", 1),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text
    assert repr(address) == f"Address({text!r})"
    assert address != text


@pytest.mark.parametrize(
    "text",
    [
        "7500",
        ":7500",
        "localhost",
        "localhost:",
        "::1:80",
        "[::1]",
        "[::1]80",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:7500 ",
        "1.2.3:80",
        "1.2.3.4.5:80",
        "256.1.1.1:80",
        "[1.2.3.4]:80",
        "[gg::]:80",
        "-a:80",
        "a..b:80",
        "http://a:80",
        "a/b:80",
        "user@a:80",
        "ä:80",
        "127.0.0.1:٣",
        f"{'a' * 64}:80",
        f"{'a.' * 127}a:80",
    ],
)
def test_not_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address such as"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("example.com", False),
    ],
)
def test_loopback(host: str, is_loopback: bool) -> None:
    assert Address(host, 1).is_loopback is is_loopback


HIDE_ME = "hide-me-please"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(HIDE_ME)
    for text in (str(secret), repr(secret), f"{secret}", f"{[secret]}", f"{secret!r:>40}"):
        assert HIDE_ME not in text
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret.reveal() == HIDE_ME
    assert secret == Secret(HIDE_ME)
    assert secret != Secret("other")
    assert secret != HIDE_ME
    assert len({secret, Secret(HIDE_ME)}) == 1


@given(st.binary(min_size=1, max_size=80), st.text(max_size=40))
def test_the_bytes_of_a_secret(content: bytes, text: str) -> None:
    assert Secret("base64:" + base64.b64encode(content).decode()).key_bytes() == content
    assert Secret("x" + text.replace("base64:", "")).key_bytes() == b"x" + text.replace("base64:", "").encode()


@pytest.mark.parametrize("text", ["base64:", "base64:####", "base64:abc", "base64:é"])
def test_wrong_base64_is_told_without_the_secret(text: str) -> None:
    with pytest.raises(ValueError, match="base64") as refusal:
        Secret(text).key_bytes()
    assert "####" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "visible", "scheme"),
    [
        ("memory://", "memory://", "memory"),
        ("redis://:pass@host/0", "redis://hidden@host/0", "redis"),
        ("REDIS://user:p@ss@host", "REDIS://hidden@host", "redis"),
        (":pass@host", "hidden@host", ""),
        ("redis+sentinel://h1:1,h2:2/s/0", "redis+sentinel://h1:1,h2:2/s/0", "redis+sentinel"),
    ],
)
def test_urls_hide_their_password(text: str, visible: str, scheme: str) -> None:
    url = Url(text)
    assert str(url) == visible
    assert repr(url) == f"Url({visible!r})"
    assert url.scheme == scheme
    assert url.reveal() == text
    assert url == Url(text)
    assert url != text
    assert len({url, Url(text)}) == 1


@pytest.mark.parametrize(("kind", "text"), [(Path, "a/b"), (Pattern, "a:*"), (Url, "memory://"), (Secret, "s")])
def test_text_becomes_its_kind(kind: type, text: str) -> None:
    assert convert_value(kind, text) == kind(text)
    for wrong in ("", 7, [text]):
        with pytest.raises(ValueError, match="expected"):
            convert_value(kind, wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        ([1], "an array"),
        ({}, "a table"),
        (None, "a date or time"),
        ("x" * 100, '"' + "x" * 77 + '..."'),
        ('a"\n', '"a\\"\\n"'),
    ],
)
def test_values_in_errors(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ("0.0.0.0/0", "1.2.3.4", "::1"),
    ],
)
def test_networks(text: str, inside: str, outside: str) -> None:
    network = Network(text)
    assert ip_address(inside) in network
    assert ip_address(outside) not in network
    assert network == Network(str(network))
    assert hash(network) == hash(Network(str(network)))
    assert network.is_everything == text.endswith("/0")
    assert convert_value(Network, text) == network


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com", "10.0.0.1/8", "10.0.0.0/-1", "10.0.0", "1.2.3.4:80"])
def test_not_networks(text: str) -> None:
    with pytest.raises(ValueError, match="expected a network such as") as refusal:
        Network(text)
    assert shown(text) in str(refusal.value)
    assert ("host bits set" in str(refusal.value)) == (text == "10.0.0.1/8")
