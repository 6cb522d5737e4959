"""Who may ask, with and without API keys."""

import pytest

from notifyd.listeners.http.guard import host_name
from notifyd.policy.forwarding import FORWARDING_HEADERS
from notifyd.settings import Network
from tests.http_client import HttpClient
from tests.unit.listeners.http.conftest import Start
from tests.unit.listeners.http.node_stand_in import NodeStandIn

CLOSED = ("/v1/topics", "/v1/tree", "/v1/connections", "/metrics", "/nothing", "/v1/config")
OPEN = ("/health", "/ready", "/", "/console/main.js", "/console/console.css", "/page.json", "/notifyd.js")


async def test_with_keys_everything_but_probes_and_the_page_needs_one(start: Start) -> None:
    client = await start(keys=("k1", "k2"))
    for path in CLOSED:
        answer = await client.get(path)
        assert answer.error[:2] == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="notifyd"'
    for path in OPEN:
        assert (await client.get(path)).status == 200, path
    for key in ("k1", "k2"):
        client.key = key
        assert (await client.get("/v1/topics")).status == 200
        assert (await client.get("/v1/nothing")).error[:2] == (404, "not_found")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer k3")],
        [("authorization", "Bearer")],
        [("authorization", "Basic azE=")],
        [("authorization", "k1")],
        [("authorization", "Bearer k1 k1")],
        [("authorization", "Bearer k1"), ("authorization", "Bearer k1")],
        [("authorization", "Bearer \xe9")],
        [("x-api-key", "k1")],
    ],
)
async def test_one_and_the_same_answer_for_every_wrong_key(start: Start, headers: list[tuple[str, str]]) -> None:
    client = await start(keys=("k1",))
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    answer = await client.ask("GET", "/v1/topics", headers=encoded)  # type: ignore[arg-type]
    assert answer.error == (401, "unauthorized", "an API key is needed: Authorization: Bearer KEY")


async def test_the_scheme_is_not_case_sensitive(start: Start) -> None:
    client = await start(keys=("k1",))
    assert (await client.get("/v1/topics", authorization="bearer  k1")).status == 200


async def test_a_key_and_a_foreign_host_go_together(start: Start) -> None:
    client = await start(keys=("k1",), key="k1")
    assert (await client.get("/v1/topics", host="notify.example.com", origin="https://a.example")).status == 200


async def test_without_keys_only_loopback_answers(start: Start) -> None:
    client = await start(host="0.0.0.0")
    answer = await client.get("/v1/topics")
    assert answer.error[:2] == (401, "unauthorized")
    assert "no API key is configured" in answer.error[2]
    for path in OPEN:
        assert (await client.get(path)).status == 200


async def test_without_keys_the_host_must_be_this_machine(client: HttpClient) -> None:
    for host in ("localhost", "LocalHost:7502", "127.0.0.1", "127.8.9.1:80", "[::1]:7502", "[::1]"):
        assert (await client.get("/v1/topics", host=host)).status == 200, host
        assert (await client.get("/", host=host)).status == 200, host
    for host in (
        "evil.example",
        "evil.example:7502",
        "127.0.0.1.evil.example",
        "localhost.evil.example:7502",
        "127.1",
        "0.0.0.0",
        "192.168.0.1",
        "[::ffff:1.2.3.4]",
        "[::1",
        "::1",
        "localhost:x",
        "user@localhost",
        "",
    ):
        for path in ("/v1/topics", "/", "/page.json", "/metrics", "/nothing"):
            answer = await client.get(path, host=host)
            assert answer.error[:2] == (403, "foreign_host"), (host, path)
        assert (await client.get("/health", host=host)).status == 200


async def test_without_a_host_at_all_it_is_refused(client: HttpClient) -> None:
    assert b" 403 " in await client.say(b"GET /v1/topics HTTP/1.0\r\n\r\n")
    assert b" 400 " in await client.say(b"GET /v1/topics HTTP/1.1\r\n\r\n")
    assert b" 400 " in await client.say(b"GET /v1/topics HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n")


async def test_without_keys_other_sites_pages_are_refused(client: HttpClient, backend: NodeStandIn) -> None:
    own = f"http://127.0.0.1:{client.port}"
    for headers in ({}, {"origin": own}, {"sec_fetch_site": "same-origin", "origin": own}, {"sec_fetch_site": "none"}):
        assert (await client.get("/v1/topics", **headers)).status == 200, headers
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": f"http://localhost:{client.port}"},
        {"origin": "http://127.0.0.1"},
        {"origin": f"{own}.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": own},
        {"sec_fetch_site": "cross-site", "origin": own},
    ):
        asked = list(backend.asked)
        for path in ("/v1/topics", "/metrics", "/nothing"):
            assert (await client.get(path, **headers)).error[:2] == (403, "cross_site"), headers
        assert (await client.get("/", **headers)).status == 200
        assert backend.asked == asked


@pytest.mark.parametrize("header", sorted(FORWARDING_HEADERS))
async def test_without_keys_what_a_proxy_passes_on_is_refused(
    header: str, client: HttpClient, backend: NodeStandIn
) -> None:
    for value in ("127.0.0.1", "for=127.0.0.1", "203.0.113.7", ""):
        for path in ("/v1/topics", "/metrics", "/nothing"):
            answer = await client.ask("GET", path, headers=[(header, value)])
            assert answer.error[:2] == (403, "forwarded")
            assert "api_keys" in answer.error[2]
        for path in OPEN:
            assert (await client.ask("GET", path, headers=[(header, value)])).status == 200
    assert backend.asked == []


async def test_without_keys_a_trusted_proxy_may_ask_for_this_machine(start: Start) -> None:
    client = await start(trusted_proxies=(Network("127.0.0.1"),))
    forwarded = [
        ("127.0.0.1", 200),
        ("203.0.113.7, 127.0.0.2", 200),
        ("127.0.0.2, 203.0.113.7", 403),
        ("203.0.113.7", 403),
        ("unknown", 403),
        ("", 403),
    ]
    for value, status in forwarded:
        assert (await client.get("/v1/topics", x_forwarded_for=value)).status == status, value
    twice = [("x-forwarded-for", "127.0.0.2"), ("x-forwarded-for", "203.0.113.7")]
    assert (await client.ask("GET", "/v1/topics", headers=twice)).status == 403
    assert (await client.get("/v1/topics", via="1.1 proxy")).status == 403
    assert (await client.get("/v1/topics")).status == 200


async def test_with_keys_a_proxy_may_ask(start: Start) -> None:
    client = await start(keys=("k1",), key="k1")
    assert (await client.get("/v1/topics", x_forwarded_for="203.0.113.7")).status == 200


async def test_a_publish_from_a_foreign_page_is_not_published(client: HttpClient, backend: NodeStandIn) -> None:
    headers = [("origin", "http://evil.example"), ("content-type", "application/x-www-form-urlencoded")]
    answer = await client.ask("POST", "/v1/publish", b'{"topic":"a","data":1}', headers)
    assert answer.error[:2] == (403, "cross_site")
    assert backend.published == []


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a.Example:80", "a.example"),
        ("a", "a"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("", ""),
        (":80", ""),
        ("::1", ""),
        ("a:b", ""),
        ("[::1", ""),
    ],
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name
