"""The life of HTTP connections: kept, bounded in time and number, and ended in order."""

import errno
import socket
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from notifyd.auth.api_keys import ApiKeys
from notifyd.errors import ListenError
from notifyd.listeners import accept
from notifyd.listeners.http.connection import HttpConnection, HttpLimits
from notifyd.listeners.http.listener import HttpListener
from notifyd.settings import Address
from tests.http_client import HttpClient
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.conftest import Start, run
from tests.unit.listeners.http.node_stand_in import NodeStandIn

GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def new_listener(backend: NodeStandIn, events: RecordedEvents, port: int = 0, **options: Any) -> HttpListener:
    address = Address("127.0.0.1", port)
    return HttpListener(address, backend, ApiKeys(()), events, payload_limit_bytes=1024, **options)


async def test_a_connection_serves_many_requests(client: HttpClient) -> None:
    conversation = await client.open()
    async with conversation.stream:
        for _ in range(5):
            assert (await conversation.ask("GET", "/health")).status == 200
            assert (await conversation.ask("POST", "/v1/publish", b'{"topic":"a","data":1}')).status == 200
            assert (await conversation.ask("DELETE", "/v1/connections/none")).status == 404


async def test_pipelined_requests_are_answered_in_order(client: HttpClient, backend: NodeStandIn) -> None:
    posts = [
        b'POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 22\r\n\r\n{"topic":"a","data":%d}' % n
        for n in range(5)
    ]
    answer = await client.say(b"".join(posts))
    assert [answer.index(b'"offset":%d}' % n) for n in range(1, 6)] == sorted(
        answer.index(b'"offset":%d}' % n) for n in range(1, 6)
    )
    assert [publication.data for publication in backend.published] == [0, 1, 2, 3, 4]


async def test_a_half_closed_client_gets_its_answer(client: HttpClient) -> None:
    assert (await client.say(GET)).endswith(b'{"status":"ok"}\n')


async def test_answers_say_nothing_about_the_server(client: HttpClient) -> None:
    headers = (await client.get("/health")).headers
    assert "server" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


async def test_head_is_get_without_a_body(client: HttpClient) -> None:
    answer = await client.say(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 16\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_unknown_paths_and_methods(client: HttpClient) -> None:
    for path in ("/nothing", "/v1/confi", "/v1/topics/", "/health/", "//health", "/v1/../health", "/ws", "/%68ealth"):
        assert (await client.get(path)).error[:2] == (404, "not_found"), path
    answer = await client.ask("PUT", "/v1/publish", b"{}")
    assert answer.error == (405, "method_not_allowed", "this path takes POST")
    assert answer.headers["allow"] == "POST"
    answer = await client.ask("OPTIONS", "/v1/topics")
    assert answer.error[2] == "this path takes GET, HEAD"


async def test_an_early_answer_reaches_a_client_that_still_sends(start: Start) -> None:
    client = await start(keys=("k1",))
    for size_bytes in (10, 100_000, 900_000):
        answer = await client.ask("POST", "/v1/publish", b"x" * size_bytes)
        assert answer.error[:2] == (401, "unauthorized")
    conversation = await client.open()
    async with conversation.stream as stream:
        await stream.send_all(b"POST /v1/publish HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x" * 100_000_000)


async def test_too_many_connections_are_refused_and_soon_let_in_again(start: Start, events: RecordedEvents) -> None:
    client = await start(limits=HttpLimits(connections=3))
    conversations = [await client.open() for _ in range(3)]
    for conversation in conversations:
        assert (await conversation.ask("GET", "/health")).status == 200
    stream = await trio.open_tcp_stream("127.0.0.1", client.port)
    refusal = b"".join([piece async for piece in stream])
    await stream.aclose()
    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert refusal.endswith(b'"too many HTTP connections; try again soon"}}\n')
    assert events.counted("refusals", reason="connection_limit") == 1
    await conversations[0].stream.aclose()
    await wait_all_tasks_blocked(0.02)
    assert (await client.get("/health")).status == 200
    for conversation in conversations[1:]:
        await conversation.stream.aclose()


async def test_a_port_in_use_is_one_line(backend: NodeStandIn, events: RecordedEvents) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            await new_listener(backend, events, port).run()
    assert str(caught.value).startswith(f"cannot listen on 127.0.0.1:{port} (listen.http): Address already in use")


async def test_an_address_of_nobody_is_one_line(backend: NodeStandIn, events: RecordedEvents) -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        listener = HttpListener(Address(host, 0), backend, ApiKeys(()), events, payload_limit_bytes=1024)
        with pytest.raises(ListenError, match=f"cannot listen on {host}:0"):
            await listener.run()


async def test_a_listener_can_run_again(backend: NodeStandIn, events: RecordedEvents) -> None:
    listener = new_listener(backend, events)
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(run, listener)
            client = HttpClient(listener.address.port)
            assert (await client.get("/health")).status == 200
            nursery.cancel_scope.cancel()
        assert listener.connection_count == 0


async def test_keys_can_be_replaced_while_it_serves(
    backend: NodeStandIn, events: RecordedEvents, nursery: trio.Nursery
) -> None:
    listener = new_listener(backend, events)
    assert not listener.accepts
    await nursery.start(run, listener)
    assert listener.accepts
    client = HttpClient(listener.address.port, key="new")
    listener.reload(ApiKeys(("old",)), 1024)
    assert (await client.get("/v1/tree")).status == 401
    listener.reload(ApiKeys(("new",)), 1024)
    assert (await client.get("/v1/tree")).status == 200


async def test_the_payload_limit_can_be_replaced_while_it_serves(
    backend: NodeStandIn, events: RecordedEvents, nursery: trio.Nursery
) -> None:
    listener = new_listener(backend, events)
    await nursery.start(run, listener)
    client = HttpClient(listener.address.port)
    message = {"topic": "a", "data": "x" * 1024}
    assert (await client.post("/v1/publish", message)).status == 413
    listener.reload(ApiKeys(()), 2048)
    assert (await client.post("/v1/publish", message)).status == 200


async def test_stopping_ends_idle_connections_and_lets_running_requests_end(
    backend: NodeStandIn, events: RecordedEvents
) -> None:
    listener = new_listener(backend, events, limits=HttpLimits(grace_s=5.0))
    backend.pause = trio.Event()
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await HttpClient(listener.address.port).get("/v1/topics")).status)

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            await nursery.start(run, listener)
            silent = await trio.open_tcp_stream("127.0.0.1", listener.address.port)
            outer.start_soon(ask)
            await backend.begun.wait()
            nursery.cancel_scope.cancel()
            outer.start_soon(release, backend.pause, silent)
        assert listener.connection_count == 0
    assert answers == [200]
    assert events.lines == []


async def release(pause: trio.Event, silent: trio.SocketStream) -> None:
    """The silent connection ends first, while the request still runs; then the request may end."""
    async with silent:
        assert await silent.receive_some() == b""
    pause.set()


async def test_stopping_does_not_wait_for_ever(backend: NodeStandIn, events: RecordedEvents) -> None:
    listener = new_listener(backend, events, limits=HttpLimits(grace_s=0.01))
    backend.pause = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(run, listener)
        stream = await trio.open_tcp_stream("127.0.0.1", listener.address.port)
        await stream.send_all(b"GET /v1/topics HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await backend.begun.wait()
        nursery.cancel_scope.cancel()
    await stream.aclose()
    assert listener.connection_count == 0
    assert events.lines == []


async def test_accepting_survives_a_full_descriptor_table(
    backend: NodeStandIn, events: RecordedEvents, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "NO_DESCRIPTOR_PAUSE_S", 0.001)
    failures = [errno.EMFILE, errno.ECONNABORTED, errno.EAGAIN]
    real = socket.socket.accept

    def failing(self: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(0), "on purpose")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    listener = new_listener(backend, events)
    await nursery.start(run, listener)
    assert (await HttpClient(listener.address.port).get("/health")).status == 200
    assert len(events.logged("no_descriptor_left")) == 1
    assert events.counted("barrier_hits") == 0


async def test_a_bug_in_a_connection_ends_that_one_alone(
    client: HttpClient, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await client.open()
    assert (await good.ask("GET", "/health")).status == 200

    async def fail(self: HttpConnection) -> None:
        self._stream.close()
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(HttpConnection, "serve", fail)
        assert await client.say(b"") == b""
    assert events.counted("barrier_hits", place="http") == 1
    assert "a bug" in events.logged("http_connection_failed")[0]["traceback"]
    assert (await good.ask("GET", "/health")).status == 200
    await good.stream.aclose()


async def test_a_bug_between_server_and_application_is_reported(
    client: HttpClient, backend: NodeStandIn, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("notifyd.listeners.http.app.Answering.__call__", fail)
    assert (await client.get("/health")).status == 500
    while not events.lines:
        await trio.lowlevel.checkpoint()
    assert events.counted("barrier_hits", place="http") == 1
    assert "a bug" in events.logged("http_server_failed")[0]["traceback"]
