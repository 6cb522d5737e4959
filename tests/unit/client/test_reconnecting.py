"""States over time, backoff, heartbeats, goaway: everything in virtual time."""

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from notifyd.client import Client, ClientClosed, ConnectionRefused, ServerUnreachable, open_client
from notifyd.client.supervision import States
from protocol.codec import Frame, FrameType
from protocol.connecting import ConnectionState
from protocol.errors import CloseCode
from protocol.messages import Connect, Connected, Error, GoAway, Publish, Published
from tests.unit.client.scripted_server import CloggedStream, Peer, ScriptedServer

DISCONNECTED, CONNECTING, CONNECTED, BACKING_OFF, UNAVAILABLE = ConnectionState
REFUSED = ConnectionRefusedError(111, "Connection refused")


async def note(states: States, seen: list[tuple[ConnectionState, float]]) -> None:
    async for state in states:
        now_s = trio.current_time()
        seen.append((state, now_s))


async def test_states_over_time_while_nobody_listens(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    device_server.refusals.extend([REFUSED] * 6)
    seen: list[tuple[ConnectionState, float]] = []
    began = trio.current_time()
    async with device_server.client() as client:
        nursery.start_soon(note, client.states(), seen)
        await device_server.accept_connected()
        await client.wait_connected()
        assert client.problem == "Connection refused"
    await trio.testing.wait_all_tasks_blocked()
    states = [state for state, _ in seen]
    assert states == [
        *(DISCONNECTED, CONNECTING),
        *(BACKING_OFF, CONNECTING) * 4,
        *(UNAVAILABLE, CONNECTING) * 2,
        *(CONNECTED, DISCONNECTED),
    ]
    waits = [
        later - earlier for earlier, later in zip([began, *device_server.dials], device_server.dials, strict=False)
    ]
    assert waits[0] == 0
    for attempt, wait in enumerate(waits[1:]):
        assert 0.1 * 2**attempt <= wait <= 0.1 * 2**attempt + 0.1


async def test_goes_on_at_the_cap(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    device_server.refusals.extend([REFUSED] * 15)
    async with device_server.client() as client:
        await device_server.accept_connected()
        await client.wait_connected()
    dials = device_server.dials
    assert [later - earlier for earlier, later in pairwise(dials[10:])] == pytest.approx([30] * 5)


async def test_gives_up_after_five_failures_where_told_to(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    device_server.refusals.extend([REFUSED] * 5)
    async with device_server.client(give_up=True) as client:
        with pytest.raises(ServerUnreachable, match="cannot reach device://server:7501: Connection refused"):
            await client.publish("a", 1)
        assert client.state is DISCONNECTED
    assert len(device_server.dials) == 5


async def test_a_success_forgets_the_failures(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_server.client(give_up=True) as client:
        for _ in range(3):
            device_server.refusals.extend([REFUSED] * 4)
            peer = await device_server.accept_connected()
            await client.wait_connected()
            await peer.end()


async def test_the_first_wait_after_a_loss(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    seen: list[tuple[ConnectionState, float]] = []
    async with device_server.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(note, client.states(), seen)
        peer = await device_server.accept_connected()
        await client.wait_connected()
        await peer.end()
        await device_server.accept_connected()
        await client.wait_connected()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [state for state, _ in seen[-4:]] == [CONNECTED, BACKING_OFF, CONNECTING, CONNECTED]
    assert 0.1 <= seen[-2][1] - seen[-3][1] <= 0.2


async def silent(server: ScriptedServer) -> None:
    peer = await server.accept()
    peer.awake = False


async def refuses_to_connect(server: ScriptedServer) -> None:
    peer = await server.accept()
    request = await peer.expect(Connect)
    await peer.refuse(request, 503)


async def ends_at_once(server: ScriptedServer) -> None:
    await (await server.accept()).end()


@pytest.mark.parametrize("serve", [silent, refuses_to_connect, ends_at_once])
async def test_attempts_that_come_to_nothing(
    server: ScriptedServer,
    nursery: trio.Nursery,
    serve: Callable[[ScriptedServer], Awaitable[None]],
    autojump_clock: MockClock,
) -> None:
    async def all_attempts() -> None:
        for _ in range(5):
            await serve(server)

    nursery.start_soon(all_attempts)
    async with server.client(give_up=True) as client:
        with pytest.raises(ServerUnreachable):
            await client.wait_connected()
    assert len(server.dials) == 5


async def test_an_attempt_has_a_deadline(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(silent, server)
    async with server.client(connect_timeout_s=3) as client:
        await trio.sleep(3.05)
        assert client.problem == "no answer within 3 s"
        assert client.state is BACKING_OFF


async def test_dialing_has_a_deadline(autojump_clock: MockClock) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with open_client("device://x:1", dial=dial, connect_timeout_s=4) as client:
        await trio.sleep(4.05)
        assert client.problem == "no answer within 4 s"


async def test_the_server_asks_for_time(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept()
        await peer.send(Error(code=503, reason="unavailable", message="too many connections", retry_after=7.0))
        await peer.end()
        await device_server.accept_connected()

    nursery.start_soon(serve)
    async with device_server.client() as client:
        await client.wait_connected()
        assert client.problem == "too many connections"
    assert device_server.dials[1] - device_server.dials[0] == pytest.approx(7)


async def test_a_refused_connect_says_how_long_to_wait(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await device_server.accept()
        await peer.refuse(await peer.expect(Connect), 503, retry_after=5.0)
        await device_server.accept_connected()

    nursery.start_soon(serve)
    async with device_server.client() as client:
        await client.wait_connected()
    assert device_server.dials[1] - device_server.dials[0] == pytest.approx(5)


# --- heartbeats ------------------------------------------------------------------------------------------------------


async def test_heartbeats_and_round_trips(server: ScriptedServer, autojump_clock: MockClock) -> None:
    trips: list[float] = []
    async with server.client(heartbeat_s=60, on_beat=trips.append) as client:
        peer = await server.accept_connected(heartbeat=2.0)
        began = trio.current_time()
        await client.wait_connected()
        assert client.round_trip_s is None
        await trio.sleep(9)
        assert [ping - began for ping in peer.pings] == pytest.approx([2, 4, 6, 8])
        assert trips == [0, 0, 0, 0]
        assert client.round_trip_s == 0


async def test_answers_the_servers_pings(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client():
        peer = await server.accept_connected()
        for timestamp_ms in (5, 2**64 - 1):
            await peer.send_frame(Frame(FrameType.PING, timestamp_ms))
            await trio.testing.wait_all_tasks_blocked()
        assert peer.pongs == [5, 2**64 - 1]


async def test_a_pong_nobody_asked_for_is_ignored(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await peer.send_frame(Frame(FrameType.PONG, 12345))
        await trio.testing.wait_all_tasks_blocked()
        assert client.round_trip_s is None


async def test_a_half_open_link_is_noticed(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client(heartbeat_s=30, floor_s=10) as client:
        peer = await server.accept_connected()
        began = trio.current_time()
        await client.wait_connected()
        peer.awake = False
        await trio.sleep_until(began + 39.9)
        assert client.state is CONNECTED
        await trio.sleep_until(began + 40.05)
        assert client.state is BACKING_OFF
        assert client.problem == "nothing was heard for 10 s"
        await server.accept_connected()
        await client.wait_connected()


async def test_any_byte_is_life(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client(heartbeat_s=30, floor_s=10) as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        peer.awake = False
        for offset in range(1, 30):
            await trio.sleep(9)
            await peer.push(offset)
        assert client.state is CONNECTED


async def test_a_link_that_takes_nothing_is_noticed(server: ScriptedServer, autojump_clock: MockClock) -> None:
    streams: list[CloggedStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(CloggedStream(stream))
        return streams[-1]

    server.wrap = wrap
    async with server.client(heartbeat_s=5, floor_s=10) as client:
        await server.accept_connected()
        await client.wait_connected()
        streams[0].blocked = True
        with trio.move_on_after(3) as scope:
            await client.publish("a", 1)
        assert scope.cancelled_caught
        await trio.sleep(12.05)
        assert client.state is BACKING_OFF
        streams.clear()
        await server.accept_connected()
        await client.wait_connected()
        streams[0].blocked = True
        began = trio.current_time()
    assert trio.current_time() - began <= 1.001


# --- goaway ----------------------------------------------------------------------------------------------------------


async def test_goaway_moves_within_its_window(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        for _ in range(8):
            peer = await server.accept_connected()
            await client.wait_connected()
            await peer.send(GoAway(reason="shutdown", after=3.0, within=5.0))
            began = trio.current_time()
            await peer.gone.wait()
            assert 3 <= trio.current_time() - began <= 8
            await trio.testing.wait_all_tasks_blocked()
            assert client.problem == "the server asked to reconnect: shutdown"
    assert len({round(dial, 3) for dial in server.dials}) >= 8


async def test_goaway_overrides_the_first_wait(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        began = trio.current_time()
        await peer.send(GoAway(reason="shutdown", after=3.0, within=0.0))
        await peer.end(CloseCode.RESTART)
        server.refusals.append(REFUSED)
        await server.accept_connected()
        await client.wait_connected()
    assert server.dials[1] - began == pytest.approx(3)
    assert 0.2 <= server.dials[2] - server.dials[1] <= 0.3


async def test_the_last_goaway_counts_and_nonsense_is_bounded(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected()
        await client.wait_connected()
        began = trio.current_time()
        await peer.send(GoAway(reason="x", after=1.0, within=0.0))
        await peer.send(GoAway(reason="x", after=float("inf"), within=float("nan")))
        await peer.gone.wait()
    assert trio.current_time() - began == pytest.approx(3600)


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_fetched_once_and_anew_when_refused(
    server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        await trio.lowlevel.checkpoint()
        fetched.append(f"t{len(fetched)}")
        return fetched[-1]

    async with server.client(fetch) as client:
        peer = await server.accept()
        assert (await peer.welcome()).token == "t0"
        await client.wait_connected()
        await peer.end()
        peer = await server.accept()
        assert (await peer.welcome()).token == "t0"
        await client.wait_connected()
        await peer.end(CloseCode.UNAUTHORIZED)
        peer = await server.accept()
        hello = await peer.expect(Connect)
        assert hello.token == "t1"
        await peer.refuse(hello, 401)
        with pytest.raises(ConnectionRefused, match=r"unauthorized.*refused.*notifyd token"):
            await client.wait_connected()


async def test_a_token_that_cannot_be_fetched_is_a_failed_attempt(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    outcomes: list[str | Exception] = [OSError("no network"), "t"]

    async def fetch() -> str:
        await trio.lowlevel.checkpoint()
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with device_server.client(fetch) as client:
        peer = await device_server.accept()
        assert client.problem == "no token could be fetched: OSError('no network')"
        assert (await peer.welcome()).token == "t"


@pytest.mark.parametrize(("code", "close_code"), [(401, 4001), (403, 4003), (400, 4000)])
async def test_a_refused_connect_is_final(
    server: ScriptedServer, nursery: trio.Nursery, code: int, close_code: int, autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept()
        await peer.refuse(await peer.expect(Connect), code)

    nursery.start_soon(serve)
    async with server.client("t") as client:
        with pytest.raises(ConnectionRefused) as refused:
            await client.wait_connected()
        assert refused.value.code == close_code


# --- a server that breaks the protocol -------------------------------------------------------------------------------


async def answers_something_else(peer: Peer) -> None:
    request = await peer.expect(Publish)
    await peer.send(Connected(id=request.id or 0, session="s", resumed=False, user="", node="n", heartbeat=30.0))


async def sends_no_message(peer: Peer) -> None:
    await peer.send_frame(Frame(FrameType.MSGPACK, 0, b"\xc1"))


@pytest.mark.parametrize("breaks", [answers_something_else, sends_no_message])
async def test_a_server_that_breaks_the_protocol_is_left(
    server: ScriptedServer, nursery: trio.Nursery, breaks: Callable[[Peer], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async def serve() -> None:
        peer = await server.accept_connected()
        await breaks(peer)
        await peer.gone.wait()
        peer = await server.accept_connected()
        request = await peer.expect(Publish)
        await peer.send(Published(id=request.id or 0, topic="a"))

    nursery.start_soon(serve)
    async with server.client() as client:
        await client.wait_connected()
        await client.publish("a", 1)
        assert client.problem is not None
        assert client.problem.startswith("the server broke the protocol: ")


async def test_a_server_that_breaks_the_protocol_at_once(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept()
        await peer.send_frame(Frame(FrameType.MSGPACK, 0, b"\xc1"))
        await server.accept_connected()
        await client.wait_connected()


async def test_bytes_that_are_no_frames(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        await peer.send_raw(b"nonsense")
        await server.accept_connected()
        await client.wait_connected()


async def test_messages_of_a_later_version_are_ignored(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        await peer.send_frame(Frame(FrameType.JSON, 0, b'{"op":"weather","sun":true}'))
        await peer.send(Connected(session="s", resumed=False, user="", node="n", heartbeat=1.0))
        await trio.testing.wait_all_tasks_blocked()
        assert client.state is CONNECTED
        assert client.session == "s1"


async def test_a_heartbeat_of_zero_does_not_spin(device_server: ScriptedServer, autojump_clock: MockClock) -> None:
    async with device_server.client() as client:
        peer = await device_server.accept_connected(heartbeat=0.0)
        await client.wait_connected()
        await trio.sleep(1.05)
        assert len(peer.pings) == 10


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_everything_fails_after_the_block(
    device_server: ScriptedServer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    seen: list[tuple[ConnectionState, float]] = []
    failures: list[BaseException] = []

    async def publish(client: Client) -> None:
        try:
            await client.publish("a", 1)
        except ClientClosed as error:
            failures.append(error)

    async with device_server.client() as client:
        nursery.start_soon(note, client.states(), seen)
        nursery.start_soon(publish, client)
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert len(failures) == 1
    assert seen[-1][0] is DISCONNECTED
    assert [state async for state in client.states()] == [DISCONNECTED]
    with pytest.raises(ClientClosed, match="the client of device://server:7501 is closed"):
        await client.wait_connected()
    with pytest.raises(ClientClosed):
        async with client.subscribe("a"):
            pass
    assert client.welcome is None
    assert client.round_trip_s is None


async def test_the_blocks_own_error_comes_out_as_it_is(
    device_server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async def fail() -> None:
        async with device_server.client() as client:
            await device_server.accept_connected()
            await client.wait_connected()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()


async def test_a_cancelled_block_ends_at_once(server: ScriptedServer, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with trio.move_on_after(5):
        async with server.client() as client:
            peer = await server.accept_connected()
            await client.wait_connected()
            await trio.sleep_forever()
    assert trio.current_time() == began + 5
    await peer.gone.wait()


async def test_leaving_does_not_wait_for_a_server_that_does_not_answer(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    async with server.client() as client:
        peer = await server.accept_connected()
        await client.wait_connected()
        peer.awake = False
        began = trio.current_time()
    assert trio.current_time() - began <= 1.001
