"""`POST /v1/publish`, single and batch, with every way of getting it wrong."""

import json
from typing import Any

import pytest
from starlette.requests import Request

from notifyd.listeners.http.answers import Refusal
from notifyd.listeners.http.backend import Publication
from notifyd.listeners.http.body import read_json_body
from tests.http_client import HttpClient
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.conftest import PAYLOAD_LIMIT_BYTES, Start
from tests.unit.listeners.http.node_stand_in import NodeStandIn

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def message(topic: str = "chat:room1", data: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"topic": topic, "data": data, **fields}


async def test_one_message(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.post("/v1/publish", message(data={"text": "grüße", "n": [1, None, 2.5]}, key="k1"))
    assert answer.status == 200
    assert answer.json == {"topic": "chat:room1", "epoch": "e1", "offset": 1}
    assert backend.published == [Publication("chat:room1", {"text": "grüße", "n": [1, None, 2.5]}, "k1")]


@pytest.mark.parametrize(
    ("headers", "own", "taken"),
    [
        ([TRACE], None, TRACE),
        ([TRACE], OTHER, OTHER),
        ([], OTHER, OTHER),
        ([TRACE], "nonsense", TRACE),
        ([f"cc{TRACE[2:]}-later"], None, TRACE),
        ([TRACE, TRACE], None, None),
        (["nonsense"], None, None),
        ([""], "", None),
    ],
)
async def test_a_trace_is_the_headers_or_the_messages_own(
    headers: list[str], own: str | None, taken: str | None, client: HttpClient, backend: NodeStandIn
) -> None:
    fields = {} if own is None else {"trace": own}
    for body in (message(**fields), [message(**fields), message("other")]):
        given = [("traceparent", header) for header in headers]
        answer = await client.ask("POST", "/v1/publish", json.dumps(body).encode(), given)
        assert answer.status == 200
    heads = TRACE if taken and headers and headers[0] != "nonsense" else None
    assert [publication.trace for publication in backend.published] == [taken, taken, heads]


async def test_a_trace_that_is_no_text_is_refused(client: HttpClient) -> None:
    assert (await client.post("/v1/publish", message(trace=7))).error[:2] == (400, "bad_request")


async def test_positions_and_scope_stand_only_where_they_are(client: HttpClient, backend: NodeStandIn) -> None:
    backend.local_topics.add("plain")
    assert (await client.post("/v1/publish", message("plain"))).json == {"topic": "plain", "scope": "node"}


async def test_a_batch_is_answered_in_order_and_leaves_together(client: HttpClient, backend: NodeStandIn) -> None:
    backend.refused_topics.add("busy")
    items = [
        message("a", 1),
        message("a:*", 2),
        message("busy", 3),
        {"topic": "a"},
        message("$sys", 4),
        message("b", "x" * PAYLOAD_LIMIT_BYTES),
        message("b", 2**64),
        17,
        message("c", 5),
    ]
    answer = await client.post("/v1/publish", items)
    assert answer.status == 200
    codes = [item["error"]["code"] if "error" in item else item["topic"] for item in answer.json]
    assert codes == ["a", 400, 503, 400, 403, 413, 400, 400, "c"]
    assert answer.json[0] == {"topic": "a", "epoch": "e1", "offset": 1}
    assert answer.json[5]["error"]["reason"] == "too_large"
    assert [publication.data for publication in backend.published] == [1, 5]
    assert backend.batches == [3]


async def test_a_batch_has_up_to_a_thousand_items(client: HttpClient, backend: NodeStandIn) -> None:
    assert (await client.post("/v1/publish", [])).json == []
    answer = await client.post("/v1/publish", [message("a", n) for n in range(1000)])
    assert [item["offset"] for item in answer.json] == list(range(1, 1001))
    answer = await client.post("/v1/publish", [message("a", n) for n in range(1001)])
    assert answer.error[:2] == (400, "bad_request")
    assert "1000" in answer.error[2]
    assert len(backend.published) == 1000


async def test_a_single_message_fails_with_its_status(client: HttpClient, backend: NodeStandIn) -> None:
    backend.refused_topics.add("busy")
    answer = await client.post("/v1/publish", message("busy"))
    assert answer.error == (503, "unavailable", "not now")
    assert answer.headers["retry-after"] == "2"
    assert (await client.post("/v1/publish", message("$sys"))).error[:2] == (403, "forbidden")
    assert (await client.post("/v1/publish", message(data="x" * PAYLOAD_LIMIT_BYTES))).error[:2] == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Input data was truncated"),
        (b"  \n", "Input data was truncated"),
        (b"{", "truncated"),
        (b'{"topic":"a","data":1}x', "trailing"),
        (b"[1,", "not a list of messages"),
        (b"\xff\xfe", "malformed"),
        (b"17", "Expected `object`"),
        (b'"text"', "Expected `object`"),
        (b'{"topic":"a"}', "missing required field `data`"),
        (b'{"data":1}', "missing required field `topic`"),
        (b'{"topic":5,"data":1}', "Expected `str`, got `int` - at `$.topic`"),
        (b'{"topic":"a","data":1,"key":7}', "$.key"),
        (b'{"topic":"a","data":1,"key":""}', "$.key"),
        (b'{"topic":"a","data":1,"ttl":7}', "unknown field `ttl`"),
        (b'{"topic":"a b","data":1}', "no white space"),
        (b'{"topic":"","data":1}', "topic has 0 bytes"),
        (b'{"topic":"a","data":NaN}', "malformed"),
        (b'{"topic":"a","data":1e999}', "range"),
        (b'{"topic":"a","data":18446744073709551616}', "2^64-1"),
        (b'{"topic":"a","data":"\\ud800"}', "not a message to publish"),
        (b'{"topic":"\xff","data":1}', "utf-8"),
        (b'{"topic":"a","data":' + b"[" * 65 + b"]" * 65 + b"}", "64 lists"),
        (b'{"topic":"a","data":' + b"[" * 400 + b"]" * 400 + b"}", "64 lists"),
    ],
)
async def test_what_is_no_message_is_named(client: HttpClient, backend: NodeStandIn, body: bytes, words: str) -> None:
    answer = await client.post("/v1/publish", body)
    assert answer.error[:2] == (400, "bad_request")
    assert words in answer.error[2]
    assert backend.published == []


async def test_nesting_beyond_every_stack_is_a_bad_request(start: Start, backend: NodeStandIn) -> None:
    client = await start(payload_limit_bytes=200_000)
    for body in (b"[" * 100_000, b'{"topic":"a","data":' + b"[" * 90_000 + b"]" * 90_000 + b"}"):
        answer = await client.post("/v1/publish", body)
        assert answer.error[:2] == (400, "bad_request")
    answer = await client.post("/v1/publish", b"[" + b"[" * 5_000 + b"]" * 5_000 + b"]")
    assert answer.status in (200, 400)
    assert backend.published == []


async def test_publish_takes_no_parameters(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await client.ask("POST", "/v1/publish?topic=a", b"{}")
    assert "unknown parameter 'topic'" in answer.error[2]


async def test_types_of_bodies(client: HttpClient, backend: NodeStandIn) -> None:
    body = json.dumps(message()).encode()
    for kind in ("application/json; charset=utf-8", "application/vnd.x+json", "application/x-www-form-urlencoded"):
        answer = await client.ask("POST", "/v1/publish", body, [("content-type", kind)])
        assert answer.status == 200, kind
    assert (await client.ask("POST", "/v1/publish", body)).status == 200
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/msgpack"):
        answer = await client.ask("POST", "/v1/publish", body, [("content-type", kind)])
        assert answer.error[:2] == (415, "unsupported_media_type")
        assert "application/json" in answer.error[2]
    answer = await client.ask("POST", "/v1/publish", body, [("content-encoding", "gzip")])
    assert answer.error[:2] == (415, "unsupported_media_type")


async def test_a_body_announced_too_large_is_refused_before_it_comes(client: HttpClient) -> None:
    conversation = await client.open()
    async with conversation.stream as stream:
        head = b"POST /v1/publish HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(head % (64 * PAYLOAD_LIMIT_BYTES + 1))
        answer = b""
        while not answer.endswith(b"}}\n"):
            answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"reason":"too_large"' in answer


async def test_a_body_found_too_large_is_refused_at_the_bound(client: HttpClient, backend: NodeStandIn) -> None:
    for size_bytes in (64 * PAYLOAD_LIMIT_BYTES, 64 * PAYLOAD_LIMIT_BYTES + 1, 40 * 64 * PAYLOAD_LIMIT_BYTES):
        body = b" " * size_bytes
        answer = await client.ask("POST", "/v1/publish", body, [("transfer-encoding", "chunked")])
        fits = size_bytes == 64 * PAYLOAD_LIMIT_BYTES
        assert answer.error[:2] == ((400, "bad_request") if fits else (413, "too_large"))
    assert backend.published == []


async def test_a_body_that_does_not_come_is_given_up(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifyd.listeners.http.body.BODY_S", 0.01)
    conversation = await client.open()
    async with conversation.stream as stream:
        await stream.send_all(b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        answer = await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_leaves_during_its_body_harms_nobody(
    client: HttpClient, backend: NodeStandIn, events: RecordedEvents
) -> None:
    answer = await client.say(b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert (await client.post("/v1/publish", message())).status == 200
    assert len(backend.published) == 1
    assert events.lines == []


async def test_a_server_that_tells_of_the_clients_leaving_is_understood() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(Refusal, match="the body ended early"):
        await read_json_body(request, 10)
