"""Every path that only looks, driven over real sockets."""

import pytest
import trio

from notifyd.errors import BrokerUnavailable
from protocol.errors import ErrorCode, RequestError
from protocol.position import Position
from protocol.topics import Pattern
from tests.http_client import HttpClient
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.node_stand_in import NodeStandIn


async def test_topics_are_listed_with_positions_only_where_they_have_them(
    client: HttpClient, backend: NodeStandIn
) -> None:
    answer = await client.get("/v1/topics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "topics": [
            {"topic": "chat:room1", "subscribers": 2, "epoch": "e1", "offset": 7},
            {"topic": "plain", "subscribers": 0},
        ],
        "more": True,
    }
    await client.get("/v1/topics?match=chat%3A*&limit=5")
    assert backend.asked == [(None, 100), (Pattern("chat:*"), 5)]


async def test_history_is_the_wires_reply_without_op_and_id(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.get("/v1/topics/chat:room1/history?since=a:b:7&limit=1000")
    assert answer.json == {
        "topic": "chat:room1",
        "epoch": "e1",
        "messages": [
            {
                "topic": "chat:room1",
                "data": {"n": 1, "raw": "AP8="},
                "epoch": "e1",
                "offset": 1,
                "time": 5,
                "sender": "ada",
            }
        ],
        "more": False,
    }
    await client.get("/v1/topics/chat%3Aroom1/history?since=earliest")
    assert backend.asked == [("chat:room1", Position("a:b", 7), 1000), ("chat:room1", "earliest", 100)]


async def test_presence(client: HttpClient) -> None:
    answer = await client.get("/v1/topics/chat:room1/presence")
    assert answer.json == {"topic": "chat:room1", "members": [{"user": "ada", "session": "s1", "since": 5}]}


async def test_a_topic_in_a_path_is_percent_decoded_once(client: HttpClient, backend: NodeStandIn) -> None:
    for path, topic in {
        "a%2Fb": "a/b",
        "a%2Fhistory": "a/history",
        "100%25:%3F%23": "100%:?#",
        "%E2%82%AC:gr%C3%BC%C3%9Fe": "€:grüße",
        "%252F": "%2F",
        "..": "..",
    }.items():
        answer = await client.get(f"/v1/topics/{path}/presence")
        assert answer.status == 200, answer.body
        assert backend.asked.pop() == (topic,)


async def test_a_topic_that_is_none_is_named(client: HttpClient) -> None:
    for path, words in {
        "a%20b": "no white space",
        "a::b": "empty part",
        "a:*": "patterns",
        "%FF": "UTF-8",
        "x" * 256: "256 bytes",
    }.items():
        answer = await client.get(f"/v1/topics/{path}/history")
        assert answer.error[:2] == (400, "bad_request")
        assert words in answer.error[2]
    assert (await client.get("/v1/topics/a/b/history")).status == 404


async def test_connections_are_listed_and_ended(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.get("/v1/connections?user=ada&limit=7")
    assert answer.json["more"] is False
    assert list(answer.json["connections"][0]) == [
        "session",
        "user",
        "transport",
        "encoding",
        "address",
        "since",
        "heard",
        "heartbeat",
        "round_trip_ms",
        "queue_bytes",
        "topics",
    ]
    await client.get("/v1/connections?user=")
    assert backend.asked == [("ada", 7), ("", 100)]
    gone = await client.ask("DELETE", "/v1/connections/s1")
    assert (gone.status, gone.body) == (204, b"")
    again = await client.ask("DELETE", "/v1/connections/s1")
    assert again.error[:2] == (404, "unknown_session")


async def test_a_session_in_a_path_is_percent_decoded(client: HttpClient, backend: NodeStandIn) -> None:
    backend.sessions.add("a/b")
    assert (await client.ask("DELETE", "/v1/connections/a%2Fb")).status == 204
    assert (await client.ask("DELETE", "/v1/connections/%FF")).error[:2] == (404, "unknown_session")


async def test_the_tree(client: HttpClient) -> None:
    tree = (await client.get("/v1/tree")).json
    assert tree["state"] == "connected"
    assert tree["error"] == "was away"
    assert tree["children"][0] == {
        "name": "http",
        "state": "connected",
        "restarts": 0,
        "since": 5,
        "error": None,
        "children": [],
        "count": None,
    }


async def test_health_needs_nothing(client: HttpClient, backend: NodeStandIn) -> None:
    backend.failure = BrokerUnavailable("gone")
    answer = await client.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


async def test_ready_says_what_is_missing(client: HttpClient, backend: NodeStandIn) -> None:
    assert (await client.get("/ready")).json == {"ready": True, "reasons": []}
    backend.reasons = ["the broker is away", "device listener: backing off"]
    answer = await client.get("/ready")
    assert answer.status == 503
    assert answer.json["ready"] is False
    assert answer.json["reasons"] == backend.reasons
    assert answer.error[:2] == (503, "unavailable")
    assert "device listener" in answer.error[2]


async def test_ready_does_not_wait_for_ever(
    client: HttpClient, backend: NodeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.listeners.http.inspection.READY_S", 0.01)
    backend.pause = trio.Event()
    answer = await client.get("/ready")
    assert answer.status == 503
    assert "did not answer" in answer.json["reasons"][0]


async def test_metrics(client: HttpClient) -> None:
    answer = await client.get("/metrics")
    assert answer.body == b"# TYPE up gauge\nup 1\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_parameters_are_checked_and_named(client: HttpClient, backend: NodeStandIn) -> None:
    for path, words in {
        "/v1/topics?macth=a": "unknown parameter 'macth'; known here: match, limit",
        "/v1/topics?limit=0": ">= 1",
        "/v1/topics?limit=1001": "<= 1000",
        "/v1/topics?limit=ten": "$.limit",
        "/v1/topics?limit=": "$.limit",
        "/v1/topics?limit=1&limit=2": "'limit' is given twice",
        "/v1/topics?match=a:**:b": "bad parameter match",
        "/v1/topics?match=%FF": "cannot be read",
        "/v1/topics?" + "&".join(["a=1"] * 20): "cannot be read",
        "/v1/topics/a/history?since=yesterday": "'earliest' or EPOCH:OFFSET is expected",
        "/v1/topics/a/history?since=latest": "'earliest' or EPOCH:OFFSET is expected",
        "/v1/topics/a/history?since=:5": "EPOCH:OFFSET",
        "/v1/topics/a/history?since=e:-1": "EPOCH:OFFSET",
        "/v1/topics/a/history?since=e:": "EPOCH:OFFSET",
        "/v1/topics/a/history?since=e:9999999999999999999999": "EPOCH:OFFSET",
        "/v1/topics/a/presence?limit=1": "this path takes none",
        "/v1/tree?deep": "this path takes none",
    }.items():
        answer = await client.get(path)
        assert answer.error[:2] == (400, "bad_request"), path
        assert words in answer.error[2], (path, answer.error)
    assert backend.asked == []


async def test_a_refusal_of_the_node_becomes_the_status(client: HttpClient, backend: NodeStandIn) -> None:
    backend.failure = RequestError(ErrorCode.NOT_FOUND, "no such topic", reason="unknown_topic")
    assert (await client.get("/v1/topics")).error == (404, "unknown_topic", "no such topic")
    backend.failure = BrokerUnavailable("connection refused", retry_after_s=2.5)
    answer = await client.get("/v1/topics")
    assert answer.error == (503, "unavailable", "the broker is away: connection refused")
    assert answer.headers["retry-after"] == "3"


async def test_a_failure_is_answered_logged_once_and_counted(
    client: HttpClient, backend: NodeStandIn, events: RecordedEvents
) -> None:
    backend.failure = RuntimeError("a bug with secrets in it")
    answer = await client.get("/v1/topics")
    assert answer.error[:2] == (500, "internal")
    assert b"secrets" not in answer.body
    assert events.counted("barrier_hits", place="http") == 1
    assert len(events.lines) == 1
    assert "a bug" in events.logged("http_request_failed")[0]["traceback"]


async def test_a_node_that_does_not_answer_is_given_up(
    client: HttpClient, backend: NodeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifyd.listeners.http.app.ANSWER_S", 0.01)
    backend.pause = trio.Event()
    assert (await client.get("/v1/topics")).error[:2] == (504, "timeout")
