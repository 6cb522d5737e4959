"""Row 18: origins. No false accept, no false refusal. The 403 before the upgrade is the listener's test."""

from typing import NamedTuple

import pytest

from notifyd.policy.origin import OriginPolicy

LISTED = (
    "https://app.example.com",
    "http://localhost:3000",
    "https://xn--mller-kva.example",
    "https://[2001:db8::1]:8443",
)


class Handshake(NamedTuple):
    """What a client says, and to whom: `host` is its Host header, `secure` that it came by TLS."""

    origins: list[str]
    host: str = "ws.example.com"
    secure: bool = True


NOT_LISTED = {
    "null": "null",
    "empty": "",
    "a suffix": "https://app.example.com.evil.example",
    "a suffix without a dot": "https://app.example.community",
    "a prefix": "https://evil-app.example.com",
    "a prefix before the host": "https://evilapp.example.com",
    "a subdomain": "https://deep.app.example.com",
    "the parent domain": "https://example.com",
    "a port": "https://app.example.com:8443",
    "the default port, written": "https://app.example.com:443",
    "an empty port": "https://app.example.com:",
    "another port": "http://localhost:3001",
    "no port": "http://localhost",
    "a longer port": "http://localhost:30000",
    "a scheme": "http://app.example.com",
    "a scheme of sockets": "wss://app.example.com",
    "no scheme": "app.example.com",
    "no scheme, slashes": "//app.example.com",
    "a case": "https://APP.example.com",
    "a case of the scheme": "HTTPS://app.example.com",
    "a trailing dot": "https://app.example.com.",
    "a trailing slash": "https://app.example.com/",
    "a path": "https://app.example.com/page",
    "a query": "https://app.example.com?x",
    "a fragment": "https://evil.example#https://app.example.com",
    "userinfo": "https://app.example.com@evil.example",
    "userinfo before": "https://user:password@app.example.com",
    "a backslash": "https://app.example.com\\@evil.example",
    "IDN as Unicode": "https://müller.example",
    "a homograph": "https://аpp.example.com",
    "full-width dots": "https://app．example．com",
    "a soft hyphen": "https://app\u00ad.example.com",
    "percent encoding": "https://app%2eexample.com",
    "space around": " https://app.example.com ",
    "a tab": "https://app.example.com\t",
    "NUL": "https://app.example.com\0.evil.example",
    "two in one header": "https://app.example.com, https://evil.example",
    "two in one header, spaced": "https://app.example.com http://localhost:3000",
    "a wildcard": "*",
    "a longer address": "https://[2001:db8:0::1]:8443",
    "the host itself": "https://ws.example.com",
}


@pytest.mark.parametrize("name", NOT_LISTED)
def test_an_origin_that_is_not_listed_is_refused(name: str) -> None:
    policy = OriginPolicy(LISTED)
    for secure in (True, False):
        assert not policy.allows(NOT_LISTED[name], "ws.example.com", secure)
        assert not policy.allows_headers([NOT_LISTED[name]], "app.example.com", secure)


@pytest.mark.parametrize("origin", LISTED)
def test_a_listed_origin_is_accepted_at_any_host(origin: str) -> None:
    for host in ("ws.example.com", "10.0.0.1:7500", "", "[::1]"):
        assert OriginPolicy(LISTED).allows(origin, host, secure=False)


SAME_HOST = {
    "the host by TLS": Handshake(["https://ws.example.com"]),
    "the host and port": Handshake(["https://ws.example.com:7500"], "ws.example.com:7500"),
    "the default port in Host": Handshake(["https://ws.example.com"], "ws.example.com:443"),
    "without TLS": Handshake(["http://ws.example.com"], "ws.example.com", False),
    "without TLS, port 80 in Host": Handshake(["http://ws.example.com"], "ws.example.com:80", False),
    "without TLS, loopback": Handshake(["http://127.0.0.1:7500"], "127.0.0.1:7500", False),
    "IPv6": Handshake(["http://[::1]:7500"], "[::1]:7500", False),
    "Host in capitals": Handshake(["http://localhost:7500"], "LOCALHOST:7500", False),
    "behind a proxy that ends TLS": Handshake(["https://ws.example.com"], "ws.example.com", False),
    "an international name": Handshake(["https://xn--mller-kva.example"], "xn--mller-kva.example"),
    "a trailing dot on both sides": Handshake(["https://ws.example.com."], "ws.example.com."),
    "an underscore": Handshake(["http://my_host:7500"], "my_host:7500", False),
}

OTHER_HOST = {
    "another host": Handshake(["https://evil.example"]),
    "null": Handshake(["null"]),
    "empty": Handshake([""]),
    "empty, empty Host": Handshake([""], ""),
    "a suffix": Handshake(["https://ws.example.com.evil.example"]),
    "a prefix": Handshake(["https://evil-ws.example.com"]),
    "a subdomain": Handshake(["https://a.ws.example.com"]),
    "the parent domain": Handshake(["https://example.com"]),
    "another port": Handshake(["https://ws.example.com:7501"], "ws.example.com:7500"),
    "a port in Host only": Handshake(["https://ws.example.com"], "ws.example.com:7500"),
    "a port in Origin only": Handshake(["https://ws.example.com:7500"]),
    "a page without TLS": Handshake(["http://ws.example.com"]),
    "a page without TLS, port 443": Handshake(["http://ws.example.com:443"], "ws.example.com:443"),
    "port 80 by https": Handshake(["https://ws.example.com:80"], "ws.example.com", False),
    "another scheme": Handshake(["ws://ws.example.com"], "ws.example.com", False),
    "an extension": Handshake(["chrome-extension://ws.example.com"]),
    "Origin in capitals": Handshake(["https://WS.example.com"]),
    "a trailing dot": Handshake(["https://ws.example.com."]),
    "a trailing dot in Host": Handshake(["https://ws.example.com"], "ws.example.com."),
    "userinfo": Handshake(["https://ws.example.com@evil.example"]),
    "userinfo in Host": Handshake(["https://evil.example"], "evil.example@ws.example.com"),
    "IDN as Unicode": Handshake(["https://müller.example"], "müller.example"),
    "a path": Handshake(["https://ws.example.com/"]),
    "the default port, written": Handshake(["https://ws.example.com:443"]),
    "a port beyond ports": Handshake(["https://ws.example.com:70000"], "ws.example.com:70000"),
    "a port with a zero before": Handshake(["https://ws.example.com:0443"]),
    "two headers": Handshake(["https://ws.example.com", "https://evil.example"]),
    "two headers, the same": Handshake(["https://ws.example.com", "https://ws.example.com"]),
    "two in one header": Handshake(["https://ws.example.com, https://ws.example.com"]),
    "a list for Host": Handshake(["https://ws.example.com"], "ws.example.com, evil.example"),
    "no Host": Handshake(["https://ws.example.com"], ""),
}


@pytest.mark.parametrize("name", SAME_HOST)
def test_a_page_of_the_same_host_is_accepted(name: str) -> None:
    origins, host, secure = SAME_HOST[name]
    assert OriginPolicy(None).allows_headers(origins, host, secure)


@pytest.mark.parametrize("name", OTHER_HOST)
def test_a_page_of_another_host_is_refused(name: str) -> None:
    origins, host, secure = OTHER_HOST[name]
    assert not OriginPolicy(None).allows_headers(origins, host, secure)


@pytest.mark.parametrize("origins", [None, (), LISTED, ("*",)], ids=["absent", "none", "listed", "any"])
def test_a_client_without_origin_is_no_browser_and_accepted(origins: tuple[str, ...] | None) -> None:
    policy = OriginPolicy(origins)
    assert policy.allows(None, "ws.example.com", secure=True)
    assert policy.allows_headers([], "ws.example.com", secure=False)


@pytest.mark.parametrize("origin", ["https://anything.example", "null", "http://localhost:1"])
def test_a_written_star_accepts_any(origin: str) -> None:
    assert OriginPolicy(("*",)).allows(origin, "ws.example.com", secure=True)
    assert not OriginPolicy(("*",)).allows_headers([origin, origin], "ws.example.com", secure=True)
    assert not OriginPolicy(()).allows(origin, "ws.example.com", secure=True)


def test_null_is_accepted_only_where_it_is_written() -> None:
    assert OriginPolicy(("null",)).allows("null", "ws.example.com", secure=True)
    assert not OriginPolicy(("https://app.example.com",)).allows("null", "ws.example.com", secure=True)


def test_the_nodes_own_page_may_connect_to_its_websocket_port() -> None:
    ports: set[int] = set()
    policy = OriginPolicy(None, ports)
    assert not policy.allows("http://127.0.0.1:7502", "127.0.0.1:7500", secure=False)
    ports.add(7502)  # known only once the HTTP listener is bound
    assert policy.allows("http://127.0.0.1:7502", "127.0.0.1:7500", secure=False)
    assert not policy.allows("http://127.0.0.2:7502", "127.0.0.1:7500", secure=False)
    assert OriginPolicy(LISTED, ports).allows("http://127.0.0.1:7502", "127.0.0.1:7500", secure=False)
    assert not OriginPolicy(LISTED, ports).allows("http://127.0.0.1:7500", "127.0.0.1:7500", secure=False)
    assert not OriginPolicy(LISTED, ports).allows("http://127.0.0.2:7502", "127.0.0.1:7500", secure=False)
