"""`/v1/revocations`: revoking, listing, and every way of getting it wrong."""

import time
from typing import Any

import pytest
import trio

from notifyd.auth.revocations import Revocation
from notifyd.errors import BrokerUnavailable
from notifyd.listeners.http.revoking import BODY_BYTES, DEFAULT_TTL_S, MAX_TOKEN_ID_BYTES, MAX_TTL_S
from tests.http_client import HttpClient
from tests.unit.listeners.http.conftest import Start
from tests.unit.listeners.http.node_stand_in import NodeStandIn

PATH = "/v1/revocations"


async def test_a_user_is_revoked_from_now_on_for_a_day(client: HttpClient, backend: NodeStandIn) -> None:
    before_s = time.time()
    answer = await client.post(PATH, {"user": "ada"})
    after_s = time.time()
    (revoked,) = backend.revoked
    assert (revoked.user, revoked.token_id) == ("ada", None)
    assert before_s <= revoked.before_s <= after_s
    assert revoked.until_s == revoked.before_s + DEFAULT_TTL_S
    assert answer.status == 200
    assert answer.json == {"user": "ada", "until": answer.json["until"]}
    assert 0 <= answer.json["until"] - revoked.until_s < 1


async def test_a_token_is_revoked_by_its_id(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.post(PATH, {"token_id": "t1", "ttl": "1h30m"})
    (revoked,) = backend.revoked
    assert (revoked.user, revoked.token_id) == (None, "t1")
    assert abs(revoked.until_s - time.time() - 5400) < 30
    assert answer.json == {"token_id": "t1", "until": answer.json["until"]}


@pytest.mark.parametrize(
    ("ttl", "ttl_s"),
    [(60, 60), (1, 1), (90.5, 90.5), ("1s", 1), ("720h", MAX_TTL_S), ("30d", MAX_TTL_S), (MAX_TTL_S, MAX_TTL_S)],
)
async def test_how_long_it_holds_is_seconds_or_a_duration(
    ttl: Any, ttl_s: float, client: HttpClient, backend: NodeStandIn
) -> None:
    assert (await client.post(PATH, {"user": "ada", "ttl": ttl})).status == 200
    assert backend.revoked[0].until_s - backend.revoked[0].before_s == pytest.approx(ttl_s, abs=1e-3)


async def test_those_in_force_are_listed(client: HttpClient, backend: NodeStandIn) -> None:
    assert (await client.get(PATH)).json == {"revocations": [], "more": False}
    backend.revoked = [Revocation(token_id="t1", until_s=4.0), Revocation(user="ada", before_s=1.5, until_s=5.2)]
    listed: list[dict[str, Any]] = [{"until": 4, "token_id": "t1"}, {"until": 6, "user": "ada"}]
    assert (await client.get(PATH)).json == {"revocations": listed, "more": False}
    assert (await client.get(f"{PATH}?limit=1")).json == {"revocations": listed[:1], "more": True}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not a revocation: Input data was truncated"),
        (b"nonsense", "not a revocation: JSON is malformed"),
        (b"\xff", "not a revocation"),
        (b'{"user":"\\ud800"}', "not a revocation"),
        (b"[" * 5000, "not a revocation"),
        (b'["ada"]', "Expected `object`, got `array`"),
        (b'{"user":"ada","ttl":1e999}', "not a revocation"),
        ({}, 'give either "user" or "token_id"'),
        ({"ttl": 60}, 'give either "user" or "token_id"'),
        ({"user": "ada", "token_id": "t1"}, 'give either "user" or "token_id"'),
        ({"user": ""}, "length >= 1"),
        ({"token_id": ""}, "length >= 1"),
        ({"user": None}, "$.user"),
        ({"user": 7}, "$.user"),
        ({"token_id": ["t1"]}, "$.token_id"),
        ({"user": "ada", "jti": "t1"}, "unknown field `jti`"),
        ({"user": "€" * 86}, '"user" has 258 bytes; 255 are allowed'),
        ({"token_id": "t" * (MAX_TOKEN_ID_BYTES + 1)}, '"token_id" has 1025 bytes; 1024 are allowed'),
        ({"user": "ada", "ttl": 0}, "at least 1 second and at most 30 days, not 0 seconds"),
        ({"user": "ada", "ttl": -1}, "not -1 seconds"),
        ({"user": "ada", "ttl": "0s"}, "not 0 seconds"),
        ({"user": "ada", "ttl": "31d"}, "at most 30 days"),
        ({"user": "ada", "ttl": MAX_TTL_S + 1}, "at most 30 days"),
        ({"user": "ada", "ttl": "soon"}, 'expected a duration such as "30s"'),
        ({"user": "ada", "ttl": ""}, "expected a duration"),
        ({"user": "ada", "ttl": True}, "$.ttl"),
        ({"user": "ada", "ttl": None}, "$.ttl"),
    ],
)
async def test_what_is_no_revocation_is_named(body: Any, words: str, client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.post(PATH, body)
    assert answer.error[:2] == (400, "bad_request")
    assert words in answer.error[2]
    assert backend.revoked == []


async def test_parameters_and_bodies_are_held_to_the_same_rules_as_everywhere(client: HttpClient) -> None:
    assert (await client.get(f"{PATH}?user=ada")).error[:2] == (400, "bad_request")
    assert (await client.post(f"{PATH}?ttl=60", {"user": "ada"})).error[:2] == (400, "bad_request")
    assert (await client.post(PATH, {"user": "a" * BODY_BYTES})).error[:2] == (413, "too_large")
    plain = await client.ask("POST", PATH, b"{}", [("content-type", "text/plain")])
    assert plain.error[:2] == (415, "unsupported_media_type")
    refused = await client.ask("DELETE", PATH)
    assert refused.error[:2] == (405, "method_not_allowed")
    assert "POST" in refused.headers["allow"]


async def test_it_needs_a_key_like_every_other_path(start: Start, backend: NodeStandIn) -> None:
    stranger = await start(keys=("k1",))
    assert (await stranger.post(PATH, {"user": "ada"})).status == 401
    assert (await stranger.get(PATH)).status == 401
    assert backend.revoked == []
    assert (await (await start(keys=("k1",), key="k1")).ask("POST", PATH, b'{"user":"ada"}')).status == 200
    cross_site = await (await start()).ask("POST", PATH, b'{"user":"ada"}', [("origin", "http://evil.example")])
    assert cross_site.status == 403


async def test_a_broker_that_is_away_is_told(client: HttpClient, backend: NodeStandIn) -> None:
    backend.failure = BrokerUnavailable("connection refused")
    assert (await client.post(PATH, {"user": "ada"})).error[:2] == (503, "unavailable")
    assert (await client.ask("DELETE", "/v1/connections/s1")).error[:2] == (503, "unavailable")


async def test_a_node_that_does_not_answer_is_given_up(
    client: HttpClient, backend: NodeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.listeners.http.app.ANSWER_S", 0.01)
    backend.pause = trio.Event()
    assert (await client.post(PATH, {"user": "ada"})).error[:2] == (504, "timeout")
