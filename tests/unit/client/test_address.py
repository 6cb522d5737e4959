"""Server URLs."""

import pytest

from notifyd.client import BadAddress, open_client
from notifyd.client.address import ServerAddress, parse_address


@pytest.mark.parametrize(
    ("url", "rest", "authority"),
    [
        ("ws://127.0.0.1:7500/ws", ("127.0.0.1", 7500, False, False, "/ws"), "127.0.0.1:7500"),
        ("ws://example.org", ("example.org", 80, False, False, "/ws"), "example.org:80"),
        ("wss://example.org/", ("example.org", 443, False, True, "/ws"), "example.org:443"),
        ("wss://example.org/a/b?x=1", ("example.org", 443, False, True, "/a/b?x=1"), "example.org:443"),
        ("ws://[::1]:7500", ("::1", 7500, False, False, "/ws"), "[::1]:7500"),
        ("device://lamp:7501", ("lamp", 7501, True, False, ""), "lamp:7501"),
        ("device://lamp/", ("lamp", 7501, True, False, ""), "lamp:7501"),
        ("device+tls://lamp:1", ("lamp", 1, True, True, ""), "lamp:1"),
    ],
)
def test_addresses(url: str, rest: tuple[str, int, bool, bool, str], authority: str) -> None:
    address = parse_address(url)
    assert address == ServerAddress(url, *rest)
    assert address.authority == authority


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "begins with one of ws://, wss://, device://, device"),
        ("http://example.org", "begins with one of"),
        ("127.0.0.1:7500", "begins with one of"),
        ("ws://", "names no host"),
        ("ws://:7500", "names no host"),
        ("ws://example.org:99999", "Port out of range"),
        ("ws://example.org:x", "Port could not be cast"),
        ("ws://[::1", "Invalid IPv6 URL"),
        ("ws://ada:secret@example.org", "hand the token over by itself"),
        ("ws://example.org/ws?token=abc", "hand the token over by itself"),
        ("ws://example.org/ä", "percent-encode"),
        ("device://example.org/ws", "a host and a port, and nothing more"),
        ("device://example.org?x=1", "a host and a port, and nothing more"),
    ],
)
def test_what_is_no_address(url: str, problem: str) -> None:
    with pytest.raises(BadAddress, match=problem.replace("+", r"\+")):
        parse_address(url)


@pytest.mark.parametrize("heartbeat_s", [0, -1, float("inf"), float("nan")])
async def test_what_is_no_heartbeat(heartbeat_s: float) -> None:
    with pytest.raises(ValueError, match="heartbeat_s is a positive number of seconds"):
        async with open_client("ws://127.0.0.1:1", heartbeat_s=heartbeat_s):
            pass


async def test_a_bad_address_is_found_before_anything_is_opened() -> None:
    with pytest.raises(BadAddress):
        async with open_client("nonsense"):
            pass
