"""Requests over broken connections: repeated with their key, given up where repeating might double, cancelled."""

from typing import Any

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock

from notifyd.client import AnswerLost, Client
from protocol.connecting import ConnectionState
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.messages import (
    Call,
    Error,
    History,
    HistoryReply,
    Message,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    Result,
    Subscribe,
    Subscribed,
)
from tests.unit.client.scripted_server import EPOCH, HANDSHAKE_S, CloggedStream, Peer, ScriptedServer, at


async def accept_publish(peer: Peer) -> Publish:
    request = await peer.expect(Publish)
    await peer.send(Published(id=request.id or 0, topic=request.topic, epoch=EPOCH, offset=1))
    return request


# --- publish ---------------------------------------------------------------------------------------------------------


async def test_a_publish_is_repeated_with_its_key_until_it_is_answered(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    keys: list[str | None] = []

    async def serve() -> None:
        for code in (None, CloseCode.RESTART, CloseCode.HEARTBEAT_LOST):
            peer = await server.accept_connected()
            keys.append((await peer.expect(Publish)).key)
            await peer.end(code)
        peer = await server.accept_connected()
        keys.append((await accept_publish(peer)).key)
        keys.append((await accept_publish(peer)).key)

    nursery.start_soon(serve)
    async with server.client() as client:
        assert (await client.publish("a", 1)).offset == 1
        await client.publish("a", 1)
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 2


async def test_own_keys_and_echo(server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def serve() -> None:
        request = await accept_publish(await server.accept_connected())
        assert (request.key, request.echo, request.trace) == ("mine", False, "00-1-2-01")

    nursery.start_soon(serve)
    async with server.client() as client:
        await client.publish("a", [1, {"b": None}], key="mine", echo=False, trace="00-1-2-01")


async def test_a_publish_waits_for_the_first_connection(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    device_server.refusals.extend([OSError("x")] * 12)

    async def serve() -> None:
        await accept_publish(await device_server.accept_connected())

    nursery.start_soon(serve)
    async with device_server.client() as client:
        await client.publish("a", 1)
        assert trio.current_time() - device_server.dials[0] > 60


async def test_the_callers_deadline_holds(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_server.client() as client:
        with pytest.raises(trio.TooSlowError), trio.fail_after(3):
            await client.publish("a", 1)


@pytest.mark.parametrize("code", [429, 503])
async def test_a_refusal_that_says_when_is_asked_again(
    server: ScriptedServer, nursery: trio.Nursery, code: int, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def serve() -> None:
        peer = await server.accept_connected()
        first = await peer.expect(Publish)
        times.append(trio.current_time())
        await peer.refuse(first, code, retry_after=1.5)
        again = await accept_publish(peer)
        times.append(trio.current_time())
        assert (again.key, again.id) == (first.key, (first.id or 0) + 1)

    nursery.start_soon(serve)
    async with server.client() as client:
        await client.publish("a", 1)
    assert times[1] - times[0] == pytest.approx(1.5)


@pytest.mark.parametrize(("code", "retry_after"), [(429, None), (503, None), (400, 1.0), (500, 1.0), (599, None)])
async def test_other_refusals_are_raised(
    device_server: ScriptedServer,
    nursery: trio.Nursery,
    code: int,
    retry_after: float | None,
    autojump_clock: MockClock,
) -> None:
    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.refuse(await peer.expect(Publish), code, retry_after)

    nursery.start_soon(serve)
    async with device_server.client() as client:
        with pytest.raises(RequestError, match="refused") as refused:
            await client.publish("a", 1)
        assert refused.value.code == (code if code in ErrorCode.__members__.values() else 500)
        assert refused.value.reason == "r"
        assert refused.value.request_id == 2


async def test_a_key_is_not_trusted_for_ever(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The server forgets a key after 300 s: a publish that may have arrived is not repeated after 240 s."""

    async def serve() -> None:
        peer = await device_server.accept_connected()
        await peer.expect(Publish)
        device_server.refusals.extend([OSError("x")] * 100)
        await peer.end()

    nursery.start_soon(serve)
    async with device_server.client() as client:
        began = trio.current_time()
        with pytest.raises(AnswerLost, match="not known"):
            await client.publish("a", 1)
        assert trio.current_time() - began == pytest.approx(240)


async def test_what_never_left_may_wait_for_ever(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    streams: list[CloggedStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(CloggedStream(stream))
        return streams[-1]

    async def publish(client: Client) -> None:
        published = await client.publish("a", 2)
        assert published.offset == 1

    device_server.wrap = wrap
    async with device_server.client(heartbeat_s=5) as client, trio.open_nursery() as inner:
        await device_server.accept_connected()
        await client.wait_connected()
        streams[0].blocked = True
        with trio.move_on_after(1):
            await client.publish("a", 1)
        inner.start_soon(publish, client)
        await trio.testing.wait_all_tasks_blocked()
        device_server.refusals.extend([OSError("x")] * 30)
        await trio.sleep(500)
        peer = await device_server.accept_connected()
        assert (await accept_publish(peer)).data == 2


@pytest.mark.parametrize("code", [CloseCode.TOO_LARGE, CloseCode.MESSAGE_TOO_BIG])
async def test_the_request_that_was_too_large_is_told_so(
    server: ScriptedServer, nursery: trio.Nursery, code: CloseCode, autojump_clock: MockClock
) -> None:
    refusals: list[RequestError] = []

    async def serve() -> None:
        peer = await server.accept_connected()
        for _ in range(3):
            await peer.expect(Publish)
        await peer.end(code)
        peer = await server.accept_connected()
        assert {(await accept_publish(peer)).data for _ in range(2)} == {"x", "y"}
        await peer.nothing_comes()

    async def publish_too_much(client: Client) -> None:
        with pytest.raises(RequestError, match="more than the server takes") as refused:
            await client.publish("a", "x" * 5000)
        refusals.append(refused.value)

    nursery.start_soon(serve)
    async with server.client() as client, trio.open_nursery() as inner:
        inner.start_soon(client.publish, "a", "x")
        inner.start_soon(publish_too_much, client)
        inner.start_soon(client.publish, "a", "y")
    assert refusals[0].code is ErrorCode.TOO_LARGE


@pytest.mark.parametrize("data", [float("nan"), 2**64, {1: 2}, (1, 2), object(), "half a pair: \ud800", "x" * 2**24])
async def test_data_that_cannot_be_carried_is_refused_before_it_leaves(
    device_server: ScriptedServer, data: Any, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()
        await client.wait_connected()
        with pytest.raises(RequestError):
            await client.publish("a", data)
        with pytest.raises(RequestError):
            await client.call("m", data)
        await peer.nothing_comes()
        assert client.state is ConnectionState.CONNECTED


async def test_publishes_that_are_not_echoed_are_no_gaps(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await answer(peer, 1, before=(), after=(2,))
        await answer(peer, 3, before=(4, 5), after=(6,))
        await answer(peer, 8, before=(7, 9), after=())
        request = await peer.expect(Publish)
        await peer.push(11)
        await peer.refuse(request, 403)
        await answer(peer, 12, before=(), after=(13,))

    async def answer(peer: Peer, offset: int, *, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        request = await peer.expect(Publish)
        await peer.push(*before)
        await peer.send(Published(id=request.id or 0, topic="a", epoch=EPOCH, offset=offset))
        await peer.push(*after)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        for _ in range(3):
            await client.publish("a", 1, echo=False)
        with pytest.raises(RequestError):
            await client.publish("a", 1, echo=False)
        await client.publish("a", 1, echo=False)
        events = [await anext(messages) for _ in range(9)]
        assert [event.offset if isinstance(event, Message) else event.reason for event in events] == [
            *(2, 4, 5, 6, 7, 9),
            *("skipped", 11, 13),
        ]


# --- call, refresh ---------------------------------------------------------------------------------------------------


async def test_a_call_is_answered_or_lost_but_never_repeated(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        request = await peer.expect(Call)
        assert (request.method, request.data) == ("orders.create", {"item": 1})
        await peer.send(Result(id=request.id, data={"order": 7}))
        await peer.expect(Call)
        await peer.end()
        peer = await server.accept_connected()
        await peer.nothing_comes()

    nursery.start_soon(serve)
    async with server.client() as client:
        assert await client.call("orders.create", {"item": 1}) == {"order": 7}
        with pytest.raises(AnswerLost):
            await client.call("orders.create")
        await client.wait_connected()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_refreshed_token_is_used_from_then_on(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.refuse(await peer.expect(Refresh), 401)
        request = await peer.expect(Refresh)
        await peer.send(Refreshed(id=request.id, expires=1_800_000_000))
        await peer.end()
        peer = await server.accept()
        assert (await peer.welcome()).token == "good"
        request = await peer.expect(Refresh)
        await peer.send(Refreshed(id=request.id))

    nursery.start_soon(serve)
    async with server.client("old") as client:
        with pytest.raises(RequestError, match="refused"):
            await client.refresh("bad")
        assert await client.refresh("good") == 1_800_000_000
        assert await client.refresh("better") is None


# --- replies ---------------------------------------------------------------------------------------------------------


async def test_replies_find_their_requests_in_any_order(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        requests = [await peer.expect(Publish) for _ in range(20)]
        for request in reversed(requests):
            await peer.send(Published(id=request.id or 0, topic="a", epoch=EPOCH, offset=request.data))
            await peer.send(Published(id=request.id or 0, topic="a", epoch=EPOCH, offset=0))

    async def publish(client: Client, number: int) -> None:
        assert (await client.publish("a", number)).offset == number

    nursery.start_soon(serve)
    async with server.client() as client, trio.open_nursery() as inner:
        for number in range(20):
            inner.start_soon(publish, client, number)


async def test_a_cancelled_callers_late_reply_is_dropped(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        with trio.move_on_after(1):
            await client.publish("a", 1)
        late = await peer.expect(Publish)
        nursery.start_soon(accept_publish, peer)
        await peer.send(Published(id=late.id or 0, topic="a", epoch=EPOCH, offset=99))
        assert (await client.publish("a", 2)).offset == 1
        await peer.send(Error(code=400, reason="r", message="nobody's", id=late.id or UNSET))
        await peer.send(Error(code=429, reason="r", message="of an unanswered request"))
        await trio.testing.wait_all_tasks_blocked()
        assert client.state is ConnectionState.CONNECTED


# --- cancellation ----------------------------------------------------------------------------------------------------


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the k-th step that any task takes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def answer_everything(server: ScriptedServer) -> None:
    """Serve politely: each topic holds five messages."""

    async def answer(peer: Peer, request: Request) -> None:
        if isinstance(request, Publish):
            await peer.send(Published(id=request.id or 0, topic=request.topic))
        elif isinstance(request, History):
            await peer.send(HistoryReply(id=request.id, topic=request.topic, messages=[], more=False))
        elif isinstance(request, Subscribe):
            assert isinstance(request.since, str)
            await peer.send(Subscribed(id=request.id, topic=request.topic, epoch=EPOCH, offset=5, recovered=True))
            await peer.push(1, 2, 3, 4, 5, topic=request.topic)

    async def serve(peer: Peer, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        with trio.CancelScope() as scope:
            nursery.start_soon(end_with, peer, scope)
            await peer.welcome()
            while True:
                await answer(peer, await peer.take_request())

    async def end_with(peer: Peer, scope: trio.CancelScope) -> None:
        await peer.gone.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        while True:
            await nursery.start(serve, await server.accept())


async def everything(client: Client) -> None:
    await client.wait_connected()
    await client.publish("a", 1)
    await client.history("a", since=at(1))
    async with client.subscribe("b", since="earliest") as messages:
        for offset in range(1, 6):
            message = await anext(messages)
            assert message.offset == offset
            messages.acknowledge(message)
    async with client.subscribe("b", since="earliest") as messages:
        assert (await anext(messages)).data == 1


@pytest.mark.guard(60)
async def test_cancelled_at_every_step_the_client_goes_on(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(answer_everything, server)
    step, done = 0, False
    async with server.client() as client:
        while not done:
            step += 1 + step // 20
            with trio.CancelScope() as scope:
                instrument = CancelAt(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await everything(client)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            done = not scope.cancelled_caught
            assert client._session.feeds == {}
            assert len(server.dials) <= 1
        await everything(client)
        connection = client._keeper.connection
        assert connection is not None
        assert connection._replies._waiting == {}
    assert step > 30
    assert len(server.dials) == 1
    nursery.cancel_scope.cancel()


@pytest.mark.guard(60)
async def test_a_whole_client_cancelled_at_every_step_leaves_nothing(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(answer_everything, server)
    await trio.testing.wait_all_tasks_blocked()
    step, done = 0, False
    while not done:
        step += 1 + step // 20
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with server.client() as client:
                    await everything(client)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        done = not scope.cancelled_caught
        assert client.state is ConnectionState.DISCONNECTED
        await trio.sleep(HANDSHAKE_S + 0.1)
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert step > 30
    nursery.cancel_scope.cancel()
