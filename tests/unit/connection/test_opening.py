"""From the first byte to `connected`: credentials, deadlines and bounds before anybody is known."""

import pytest
import trio
from trio.testing import MockClock

from notifyd.broker.base import SessionRecord
from notifyd.errors import BrokerUnavailable
from notifyd.settings import AuthSettings, HeartbeatSettings, LimitSettings
from protocol.codec import FrameType, encode_frame
from tests.kit.clients import DeviceClient, Refused, WebSocketClient
from tests.kit.memory_node import (
    ENCODINGS,
    TRANSPORTS,
    open_memory_node,
    policy,
    query,
    settings,
    with_tokens_only,
)
from tests.unit.transport.client_frames import BINARY, PING, TEXT, frame

on_both = pytest.mark.parametrize("transport", TRANSPORTS)
in_both = pytest.mark.parametrize("encoding", ENCODINGS)


class TestConnect:
    @on_both
    @in_both
    async def test_anonymous(self, transport: str, encoding: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.client(transport, encoding)
            reply = await client.connect(client={"name": "test", "version": "1"})
            assert reply == {
                "op": "connected",
                "id": 1,
                "session": client.session,
                "resumed": False,
                "user": "",
                "node": "n1",
                "heartbeat": 30.0,
            }
            assert len(client.session) >= 24
            assert node.hub.registry.subscribers.keys() == {client.session}

    @on_both
    async def test_with_a_token(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.client(transport)
            reply = await client.connect(token=node.token("ada", expires_in_s=60))
            assert (reply["user"], reply["expires"]) == ("ada", 1_790_000_060)

    @on_both
    @pytest.mark.parametrize("token", [None, "", "x", "a.b.c"])
    async def test_a_bad_token_gets_401_then_4001(
        self, transport: str, token: str | None, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            client = await node.client(transport)
            reply = await client.connect(**({} if token is None else {"token": token}))
            assert (reply["op"], reply["code"], reply["reason"]) == ("error", 401, "unauthorized")
            assert (await client.end()).code == 4001
            assert node.events.counted("token_refusals") == 1
            await node.let_go()
            node.assert_empty()

    @on_both
    async def test_every_bad_token_gets_the_same_answer(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            answers = set()
            expired = node.token("ada", expires_in_s=1)
            await node.sleep(2)
            for token in ("x", expired, node.token("ada")[:-2] + "AA"):
                client = await node.client(transport)
                answers.add((await client.connect(token=token))["message"])
            assert len(answers) == 1

    @on_both
    async def test_topics_of_the_token_are_subscribed(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only(topics=(policy("plain:x", history=0),))) as node:
            token = node.token("ada", topics=["a:b", "plain:x", "not:allowed"], subscribe=["a:*"])
            client = await node.client(transport)
            reply = await client.connect(token=token)
            epoch = (await node.hub.history("a:b", "latest", 1)).top.epoch
            assert reply["topics"] == {"a:b": {"epoch": epoch, "offset": 0}, "plain:x": {}}
            await node.hub.publish("a:b", 1)
            assert (await client.next_push())["offset"] == 1

    @on_both
    async def test_a_bad_wish_for_a_heartbeat_may_be_mended(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.client(transport, "msgpack")
            for wish in (0, -1, float("inf"), float("nan"), "30"):
                assert (await client.connect(heartbeat=wish))["code"] == 400
            assert (await client.connect(heartbeat=5))["heartbeat"] == 5.0

    @on_both
    @pytest.mark.parametrize(("wish", "agreed"), [(None, 30.0), (7, 7.0), (0.001, 2.0), (1e9, 100.0)])
    async def test_a_heartbeat_is_brought_within_the_bounds(
        self, transport: str, wish: float | None, agreed: float, autojump_clock: MockClock
    ) -> None:
        bounds = HeartbeatSettings(minimum_s=2, maximum_s=100)
        async with open_memory_node(settings(heartbeat=bounds)) as node:
            client = await node.client(transport)
            reply = await client.connect(**({} if wish is None else {"heartbeat": wish}))
            assert reply["heartbeat"] == agreed

    @on_both
    async def test_the_broker_away_before_anything_happened_may_be_asked_again(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            node.broker.fail("load_session", BrokerUnavailable("away"))
            client = await node.client(transport)
            assert (await client.connect(session="old"))["code"] == 503
            assert (await client.connect(session="old"))["op"] == "connected"

    @on_both
    async def test_the_broker_away_in_the_middle_ends_it_and_keeps_the_session_whole(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            positions = dict.fromkeys(("a:b", "c:d", "e:f"))
            await node.broker.save_session(SessionRecord("old", "", positions), 100)
            client = await node.client(transport)
            node.broker.fail("history", BrokerUnavailable("away"))
            assert (await client.connect(session="old"))["code"] == 503
            assert (await client.end()).code == 1012
            again = await node.client(transport)
            reply = await again.connect(session="old")
            assert reply["resumed"] is True
            assert reply["topics"].keys() == positions.keys()
            assert node.barrier_hits == 0

    @on_both
    async def test_cut_off_in_the_middle_the_session_is_kept_whole(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            first = await node.connected(transport)
            for topic in ("a:b", "c:d", "e:f"):
                await first.ask("subscribe", topic=topic)
            first.stream.close()
            await node.sleep(5)
            await node.hub.publish("e:f", 1)
            second = await node.client(transport)
            node.broker.pause("history")
            await second.send({"op": "connect", "id": 1, "session": first.session})
            await node.broker.waiting("history")
            second.stream.reset()
            node.broker.resume("history")
            await node.sleep(1)
            node.cancel_connections()
            await node.let_go()
            third = await node.client(transport)
            reply = await third.connect(session=first.session)
            assert reply["topics"].keys() == {"a:b", "c:d", "e:f"}
            assert (await third.next_push())["topic"] == "e:f"


class TestBeforeConnect:
    @on_both
    @in_both
    async def test_only_connect_ping_and_heartbeats_mean_anything(
        self, transport: str, encoding: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            client = await node.client(transport, encoding)
            for request in (
                {"op": "subscribe", "topic": "a:b"},
                {"op": "publish", "topic": "a:b", "data": 1},
                {"op": "ack", "topic": "a:b", "offset": 1},
                {"op": "call", "method": "x"},
            ):
                reply = await client.ask(**request)
                assert (reply["code"], reply["reason"]) == (401, "unauthorized")
            assert (await client.ask("ping"))["op"] == "pong"
            await client.send_heartbeat(FrameType.PING, 5)
            assert (await client.connect())["op"] == "connected"
            assert client.heartbeats == [(FrameType.PONG, 5)]
            assert not node.hub.registry.topics

    async def test_a_device_is_answered_in_the_encoding_of_its_last_frame(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.device()
            await client.send({"op": "ping", "id": 1}, encoding="msgpack")
            await client.reply(1)
            assert node.connections[0].outbox.form.name == "DEVICE_MSGPACK"
            await client.send({"op": "ping", "id": 2}, encoding="json")
            await client.reply(2)
            assert node.connections[0].outbox.form.name == "DEVICE_JSON"

    @on_both
    async def test_nothing_in_ten_seconds_is_4001(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            began_s = node.time_s()
            client = await node.client(transport)
            await client.send_heartbeat(FrameType.PING, 5)
            assert (await client.end()).code == 4001
            assert node.time_s() - began_s == 10
            await node.let_go()
            node.assert_empty()

    @on_both
    async def test_heartbeats_put_it_off_for_nobody(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(settings(limits=LimitSettings(handshake_s=3))) as node:
            client = await node.client(transport)

            async def beat() -> None:
                while True:
                    await client.send_heartbeat(FrameType.PING, 5)
                    await trio.sleep(0.5)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(beat)
                assert (await client.end()).code == 4001
                nursery.cancel_scope.cancel()
            assert node.time_s() == 3

    @on_both
    @pytest.mark.parametrize(("heartbeats", "connects"), [(250, True), (257, False)])
    async def test_four_kilobytes_in_all(
        self, transport: str, heartbeats: int, connects: bool, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            client = await node.client(transport)
            for number in range(heartbeats):
                await client.send_heartbeat(FrameType.PING, number)
            if connects:
                assert (await client.connect())["op"] == "connected"
                assert len(client.heartbeats) == heartbeats
            else:
                assert (await client.end()).code == 4001
            assert node.time_s() == 0

    async def test_websocket_pings_count_too(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.websocket()
            for _ in range(40):
                await client.send_ping(b"x" * 125)
            assert (await client.end()).code == 4001

    async def test_a_frame_above_four_kilobytes_is_refused_from_its_header(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            device = await node.device()
            await device.send_data(encode_frame(FrameType.JSON, b"x" * 4097)[:16])
            assert (await device.end()).code == 4013
            browser = await node.websocket()
            await browser.send_data(frame(TEXT, b"x" * 4097)[:8])
            assert (await browser.end()).code == 1009

    @on_both
    @pytest.mark.parametrize("piece_bytes", [None, 4096, 100, 1])
    async def test_what_follows_connect_is_bound_by_the_usual_limits_however_it_is_cut(
        self, transport: str, piece_bytes: int | None, autojump_clock: MockClock
    ) -> None:
        """A client need not wait for `connected`: its next requests may be large, and many."""
        async with open_memory_node() as node:
            client = await node.client(transport)
            written = client.written({"op": "connect", "id": 1})
            written += client.written({"op": "publish", "id": 2, "topic": "a:b", "data": "x" * 10_000})
            written += b"".join(
                client.written({"op": "history", "id": number, "topic": "a:b", "limit": 1}) for number in range(3, 40)
            )
            for start in range(0, len(written), piece_bytes or len(written)):
                await client.send_data(written[start : start + (piece_bytes or len(written))])
                if piece_bytes:
                    await trio.lowlevel.checkpoint()
            assert [(await client.receive())["op"] for _ in range(39)] == ["connected", "published"] + ["history"] * 37

    @on_both
    async def test_also_when_connecting_takes_its_time(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.broker.pause("load_session")
            client = await node.client(transport)
            await client.send({"op": "connect", "id": 1, "session": "old"})
            await client.send({"op": "publish", "id": 2, "topic": "a:b", "data": "x" * 10_000})
            await client.send({"op": "history", "id": 3, "topic": "a:b"})
            await node.sleep(1)
            node.broker.resume("load_session")
            assert [(await client.receive())["op"] for _ in range(3)] == ["connected", "published", "history"]

    @on_both
    async def test_an_unfinished_handshake_ends_without_a_word(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            stream = node.open_stream("websocket")
            stream.send_now(b"GET /ws HTTP/1.1\r\nHost:")
            assert await stream.receive_some() == b""
            assert node.time_s() == 10
            stream.close()
            await node.let_go()
            node.assert_empty()
            assert node.events.counted("refusals", reason="handshake_timeout") == 1


class TestWebSocketHandshake:
    async def test_a_token_in_the_url_connects_at_once(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            for headers, target in (
                ({}, query(token=node.token("ada"))),
                ({"Authorization": f"Bearer {node.token('ada')}"}, "/ws"),
                ({"Authorization": f"bearer {node.token('ada')}"}, query(token="not looked at")),
            ):
                client = await node.websocket("json", target, **headers)
                connected = await client.receive()
                assert connected == {
                    "op": "connected",
                    "session": connected["session"],
                    "resumed": False,
                    "user": "ada",
                    "node": "n1",
                    "heartbeat": 30.0,
                }
                assert (await client.connect())["code"] == 409

    async def test_topics_session_and_heartbeat_in_the_url(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            first = await node.websocket("msgpack", query(topics="a:b,c:d,a:b,,", heartbeat="0.2"))
            connected = await first.receive()
            assert connected["topics"].keys() == {"a:b", "c:d"}
            assert connected["heartbeat"] == 1.0
            assert first.subprotocol == "notifyd.v1.msgpack"
            first.stream.close()
            await node.sleep(5)
            await node.hub.publish("c:d", 1)
            second = await node.websocket("json", query(topics="e:f", session=connected["session"]))
            again = await second.receive()
            assert again["resumed"] is True
            assert again["topics"].keys() == {"a:b", "c:d", "e:f"}
            assert (await second.receive())["topic"] == "c:d"

    async def test_a_token_and_topics(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            token = node.token("ada", topics=["c:d", "a:b"], subscribe=["a:*", "c:*"])
            client = await node.websocket("json", query(token=token, topics="a:b,a:x"))
            assert list((await client.receive())["topics"]) == ["a:b", "a:x", "c:d"]

    @pytest.mark.parametrize(
        ("fields", "headers", "status"),
        [
            ({"token": "x"}, {}, 401),
            ({"token": ""}, {}, 401),
            ({"topics": "a:b"}, {}, 401),
            ({}, {"Authorization": "Basic eDp5"}, 401),
            ({}, {"Authorization": "Bearer"}, 401),
            ({}, {"Authorization": "Bearer "}, 401),
        ],
    )
    async def test_refused_without_a_good_token(
        self, fields: dict[str, str], headers: dict[str, str], status: int, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            with pytest.raises(Refused) as refused:
                await node.websocket("json", query(**fields), **headers)
            assert refused.value.status == status
            assert refused.value.headers["www-authenticate"] == "Bearer"
            assert refused.value.body["error"]["reason"] == "unauthorized"

    @pytest.mark.parametrize(
        ("target", "status"),
        [
            ("/other", 404),
            ("/", 404),
            ("/echo", 404),
            (query(topics="a::b"), 400),
            (query(topics="$server"), 403),
            (query(topics="secret:x"), 403),
            (query(topics="a:b", heartbeat="0"), 400),
            (query(topics="a:b", heartbeat="nan"), 400),
            (query(topics="a:b", heartbeat="inf"), 400),
            (query(topics="a:b", heartbeat="soon"), 400),
            (query(topics="a:b") + "&topics=c:d", 400),
            (query(topics="a:b", session="x") + "&session=y", 400),
            (query(topics="a:b") + "&heartbeat=1&heartbeat=2", 400),
            ("/ws?token=x&token=y", 400),
        ],
    )
    async def test_refused_for_what_it_asks(self, target: str, status: int, autojump_clock: MockClock) -> None:
        async with open_memory_node(settings(topics=(policy("secret:*", subscribe="service"),))) as node:
            with pytest.raises(Refused) as refused:
                await node.websocket("json", target)
            assert refused.value.status == status
            assert refused.value.body["error"]["code"] == status
            await node.let_go()
            node.assert_empty()
            assert node.events.counted("refusals") == 1

    async def test_subprotocols(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            offered = "graphql-ws, notifyd.v1.msgpack, notifyd.v1.json"
            client = await node.websocket("json", Sec_WebSocket_Protocol=offered)
            assert client.subprotocol == "notifyd.v1.msgpack"
            with pytest.raises(Refused, match="400"):
                await node.websocket("json", Sec_WebSocket_Protocol="graphql-ws")

    async def test_an_origin_that_is_not_allowed(self, autojump_clock: MockClock) -> None:
        auth = AuthSettings(anonymous=True, origins=("https://app.example.com",))
        async with open_memory_node(settings(auth=auth)) as node:
            await node.websocket("json", Origin="https://app.example.com")
            with pytest.raises(Refused, match="403"):
                await node.websocket("json", Origin="https://evil.example.com")

    async def test_frames_in_the_same_piece_as_the_request_are_kept(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = WebSocketClient(node.open_stream("websocket"))
            trailing = client.written({"op": "connect", "id": 1}) + client.written({"op": "ping", "id": 2})
            await client.upgrade(trailing=trailing)
            assert [(await client.receive())["op"] for _ in range(2)] == ["connected", "pong"]

    async def test_a_peer_that_resets_instead_of_waiting_for_the_answer(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            for _ in range(3):
                stream = node.open_stream("websocket")
                stream.send_now(WebSocketClient(stream).request("/ws"))
                stream.reset()
                other = node.open_stream("websocket")
                other.send_now(b"GET /ws HT")
                await node.sleep(0)
                other.reset()
            await node.let_go()
            node.assert_empty()
            assert node.barrier_hits == 0

    async def test_the_broker_away_ends_it_with_1012(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.broker.fail("history", BrokerUnavailable("away"))
            client = await node.websocket("json", query(topics="a:b"))
            assert (await client.end()).code == 1012
            node.broker.fail("load_session", BrokerUnavailable("away"))
            client = await node.websocket("json", query(topics="a:b", session="x"))
            assert (await client.end()).code == 1012
            await node.let_go()
            node.assert_empty()
            assert node.barrier_hits == 0

    async def test_rfc_6455_pings_are_answered(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            client = await node.connected("websocket")
            await client.send_ping(b"hello")
            await client.ask("ping")
            assert client.controls == [(10, b"hello")]
            assert PING == 9

    async def test_the_clients_close_is_answered(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            for code in (1000, 1001, 3000):
                client = await node.connected("websocket")
                await client.send_close(code, "bye")
                assert (await client.end()) == (code, "bye")
            await node.let_go()
            node.assert_empty()
            assert node.events.counted("connections_closed", reason="normal") == 3


async def test_a_device_that_leaves_before_it_said_anything(autojump_clock: MockClock) -> None:
    async with open_memory_node() as node:
        for leave in ("end", "close", "reset"):
            client = DeviceClient(node.open_stream("device"))
            await client.send_data(b"HEAR")
            getattr(client.stream, leave)()
            if leave == "end":
                assert (await client.end()).code is None
        await node.let_go()
        node.assert_empty()
        assert node.barrier_hits == 0
        assert BINARY == 2
