"""What a client promises its user, over every transport and encoding."""

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock

from notifyd.client import ConnectionRefused
from protocol.connecting import ConnectionState
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.messages import (
    Entry,
    Gap,
    History,
    HistoryReply,
    Member,
    Message,
    Presence,
    PresenceReply,
    Publish,
    Published,
)
from tests.unit.client.scripted_server import EPOCH, ScriptedServer, at


async def test_publish_is_answered(server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def serve() -> None:
        peer = await server.accept_connected(session="s7")
        request = await peer.expect(Publish)
        assert (request.topic, request.data, request.echo) == ("chat:room1", {"text": "hé"}, True)
        assert request.key
        await peer.send(Published(id=request.id or 0, topic=request.topic, epoch=EPOCH, offset=3))

    nursery.start_soon(serve)
    async with server.client("secret", client_name="lamp", heartbeat_s=5) as client:
        published = await client.publish("chat:room1", {"text": "hé"})
        assert (published.epoch, published.offset) == (EPOCH, 3)
        assert client.session == "s7"
        assert client.state is ConnectionState.CONNECTED
        assert client.welcome is not None
        assert client.welcome.user == "ada"
    assert client.state is ConnectionState.DISCONNECTED


async def test_connect_says_who_and_how(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with server.client("secret", session="s0", client_name="lamp", heartbeat_s=5) as client:
        peer = await server.accept()
        hello = await peer.welcome(session="s0", resumed=True)
        assert (hello.token, hello.session, hello.heartbeat) == ("secret", "s0", 5)
        assert hello.client is not None
        assert hello.client.name == "lamp"
        assert hello.positions is None
        await client.wait_connected()


async def test_subscribe_yields_messages_in_order(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        request = await peer.admit(offset=5)
        assert request.since == "latest"
        await peer.push(6, 7, 8)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert [(await anext(messages)).data for _ in range(3)] == [6, 7, 8]
        assert messages.position == at(8)


async def test_leaving_the_block_unsubscribes(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = None
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                nonlocal peer
                peer = await server.accept_connected()
                await peer.admit()

            nursery.start_soon(serve)
            async with client.subscribe("a"):
                pass
        assert peer is not None
        await trio.testing.wait_all_tasks_blocked()
        assert peer.unsubscribed == ["a"]


async def test_questions_are_answered(server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        history = await peer.expect(History)
        assert (history.since, history.limit) == (at(2), 5)
        entry = Entry(topic="a", data=1, time=1, epoch=EPOCH, offset=3)
        await peer.send(HistoryReply(id=history.id, topic="a", messages=[entry], more=False, epoch=EPOCH))
        presence = await peer.expect(Presence)
        member = Member(user="ada", session="s1", since=7)
        await peer.send(PresenceReply(id=presence.id, topic="a", members=[member]))

    nursery.start_soon(serve)
    async with server.client() as client:
        page = await client.history("a", since=at(2), limit=5)
        assert [entry.offset for entry in page.messages] == [3]
        assert [member.user for member in await client.presence("a")] == ["ada"]


async def test_a_refusal_is_raised_and_the_connection_goes_on(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.refuse(await peer.expect(Publish), 403)
        request = await peer.expect(Publish)
        await peer.send(Published(id=request.id or 0, topic="a"))

    nursery.start_soon(serve)
    async with server.client() as client:
        with pytest.raises(RequestError) as refused:
            await client.publish("a", 1)
        assert refused.value.code is ErrorCode.FORBIDDEN
        assert (await client.publish("a", 2)).offset is UNSET
    assert len(server.dials) == 1


async def test_a_broken_connection_is_made_anew_without_loss_or_duplicates(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1, 2)
        await trio.testing.wait_all_tasks_blocked()
        await peer.end()
        peer = await server.accept()
        hello = await peer.welcome(session="s2")
        assert hello.session == "s1"
        assert hello.positions == {"a": at(2)}
        again = await peer.admit(offset=4, recovered=True)
        assert again.since == at(2)
        await peer.push(2, 3, 4, 5)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        assert [(await anext(messages)).data for _ in range(5)] == [1, 2, 3, 4, 5]
        assert client.session == "s2"


@pytest.mark.parametrize(
    "code", [CloseCode.PROTOCOL_ERROR, CloseCode.UNAUTHORIZED, CloseCode.FORBIDDEN, CloseCode.REPLACED]
)
async def test_final_close_codes_end_the_client(
    server: ScriptedServer, nursery: trio.Nursery, code: CloseCode, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.expect(Publish)
        await peer.end(code)

    nursery.start_soon(serve)
    async with server.client("t") as client:
        states = client.states()
        with pytest.raises(ConnectionRefused, match=code.reason) as refused:
            await client.publish("a", 1)
        assert refused.value.code is code
        assert [state async for state in states][-1] is ConnectionState.DISCONNECTED
        with pytest.raises(ConnectionRefused):
            await client.history("a")
        with pytest.raises(ConnectionRefused):
            async with client.subscribe("a"):
                pass
    assert len(server.dials) == 1


@pytest.mark.parametrize("code", [CloseCode.RESTART, CloseCode.TOO_SLOW, CloseCode.HEARTBEAT_LOST, CloseCode.INTERNAL])
async def test_other_close_codes_are_followed_by_a_new_connection(
    server: ScriptedServer, nursery: trio.Nursery, code: CloseCode, autojump_clock: MockClock
) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        await peer.end(code)
        await server.accept_connected()
        await client.wait_connected()
        assert client.problem == "the server says so"


async def test_a_gap_the_server_tells_stands_in_its_place(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await peer.admit(offset=0)
        await peer.push(1)
        await peer.send(Gap(topic="a", first=2, last=5, reason="slow", epoch=EPOCH))
        await peer.push(6)

    nursery.start_soon(serve)
    async with server.client() as client, client.subscribe("a") as messages:
        events = [await anext(messages) for _ in range(3)]
    assert [type(event) for event in events] == [Message, Gap, Message]
    gap = events[1]
    assert isinstance(gap, Gap)
    assert (gap.first, gap.last, gap.reason, gap.epoch) == (2, 5, "slow", EPOCH)


async def test_the_client_says_goodbye(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
    await peer.gone.wait()
