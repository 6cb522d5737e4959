"""Who may watch the server itself: an API key, or, while none is configured, a client of this very machine."""

from typing import Any

import jwt
import msgspec
import pytest
from trio.testing import MockClock

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import SessionRecord
from notifyd.model import SessionId
from notifyd.settings import Address, AuthSettings, ListenSettings, Secret, Settings
from tests.kit.clients import Client, Refused
from tests.kit.memory_node import TRANSPORTS, MemoryNode, open_memory_node, policy, query, settings, with_tokens_only

KEY = "an API key of this node"
LOCAL = {"Host": "127.0.0.1:7500"}
SYS = "$sys:figures"

on_both = pytest.mark.parametrize("transport", TRANSPORTS)


def with_key(base: Settings | None = None, *keys: str) -> Settings:
    """Settings with these API keys, or the usual one."""
    base = base or settings()
    auth = msgspec.structs.replace(base.auth, api_keys=tuple(map(Secret, keys or (KEY,))))
    return msgspec.structs.replace(base, auth=auth)


async def code_of(client: Client, op: str, **fields: Any) -> int | None:
    """Ask, and return the error's code, None for what was granted."""
    reply = await client.ask(op, **fields)
    return reply["code"] if reply["op"] == "error" else None


async def may_watch(client: Client) -> bool:
    return await code_of(client, "subscribe", topic=SYS) is None


async def from_here(node: MemoryNode, target: str = "/ws", **headers: str) -> Client:
    """Connect from this machine."""
    node.peer_host = "127.0.0.1"
    client = await node.websocket(target=target, **{**LOCAL, **headers})
    if "?" not in target:
        assert (await client.connect())["op"] == "connected"
    return client


class TestApiKeys:
    @on_both
    async def test_a_key_is_a_token_for_all_that_is_not_the_servers(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        closed = policy("**", publish="service", subscribe="service")
        async with open_memory_node(with_key(with_tokens_only(topics=(closed,)))) as node:
            operator = await node.connected(transport, token=KEY)
            assert (await operator.ask("ping"))["op"] == "pong"
            for op in ("subscribe", "history", "presence"):
                assert await code_of(operator, op, topic="a:b") is None
                assert await code_of(operator, op, topic=SYS) is None
            assert await code_of(operator, "publish", topic="a:b", data=1) is None
            assert await code_of(operator, "publish", topic=SYS, data=1) == 403
            assert (await operator.next_push())["sender"] == "$operator"
            assert node.barrier_hits == 0

    async def test_it_is_shown_in_the_handshake_too(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key(with_tokens_only())) as node:
            by_query = await node.websocket(target=query(token=KEY, topics=f"{SYS},a:b"))
            connected = await by_query.receive()
            assert (connected["user"], connected["topics"][SYS]) == ("$operator", {})
            by_header = await node.websocket(Authorization=f"Bearer {KEY}")
            assert "expires" not in await by_header.receive()
            assert await may_watch(by_header)

    @on_both
    async def test_a_wrong_key_is_answered_like_every_bad_token(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_key(with_tokens_only())) as node:
            answers = set()
            for token in (KEY + "x", KEY[:-1], "", "a.b.c", node.token("ada")[:-2] + "AA"):
                client = await node.client(transport)
                reply = await client.connect(token=token)
                answers.add((reply["code"], reply["reason"], reply["message"], (await client.end()).code))
            assert len(answers) == 1
            assert {code for code, *_ in answers} == {401}

    async def test_it_neither_expires_nor_can_be_revoked(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            operator = await node.connected(token=KEY)
            await node.hub.revoke(_revocation(node, "$operator"))
            operator.answers_pings = True
            assert (await operator.ask("ping"))["op"] == "pong"
            assert await may_watch(await node.connected(token=KEY))

    @on_both
    async def test_the_connections_of_a_key_that_is_gone_end(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key(None, "the first key", "the second key")) as node:
            first = await node.connected(transport, token="the first key")
            second = await node.connected(transport, token="the second key")
            ada = await node.connected(transport, token_for="ada")
            node.context.reload(with_key(None, "the second key", "the third key"))
            assert (await first.end()).code == 4001
            assert (await second.ask("ping"))["op"] == "pong"
            assert (await ada.ask("ping"))["op"] == "pong"
            again = await node.client(transport)
            assert (await again.connect(token="the first key"))["code"] == 401

    async def test_a_key_that_goes_while_its_client_waits_is_not_let_in(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            node.broker.pause("load_session")
            client = await node.device()
            await client.send({"op": "connect", "id": 1, "token": KEY, "session": "old"})
            await node.broker.waiting("load_session")
            node.context.reload(with_key(None, "another key"))
            node.broker.resume("load_session")
            assert (await client.receive())["code"] == 401
            assert (await client.end()).code == 4001

    async def test_a_refresh_may_show_a_key_but_not_become_somebody_else(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            operator = await node.connected(token=KEY)
            assert (await operator.ask("refresh", token=KEY))["op"] == "refreshed"
            assert await code_of(operator, "refresh", token=node.token("ada")) == 403
            ada = await node.connected(token_for="ada")
            assert await code_of(ada, "refresh", token=KEY) == 403
            assert not await may_watch(ada)


class TestOthers:
    @on_both
    async def test_no_token_of_a_user_opens_what_is_the_servers(
        self, transport: str, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node(with_key()) as node:
            node.peer_host = "127.0.0.1"
            tokens = [None, node.token("ada"), node.token("ada", subscribe=["**", "$sys:*", "$sys:**", SYS])]
            for token in tokens:
                client = await node.connected(transport, **({} if token is None else {"token": token}))
                for op in ("subscribe", "history", "presence"):
                    assert await code_of(client, op, topic=SYS) == 403
                assert await code_of(client, "publish", topic=SYS, data=1) == 403

    @on_both
    async def test_nor_do_the_topics_of_a_token(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            token = node.token("ada", topics=[SYS, "a:b"], subscribe=["**", SYS])
            reply = await (await node.client(transport)).connect(token=token)
            assert reply["topics"].keys() == {"a:b"}

    @pytest.mark.parametrize("token", [None, "ada"])
    async def test_nor_the_topics_of_the_url(self, token: str | None, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            node.peer_host = "127.0.0.1"
            shown = {} if token is None else {"token": node.token(token)}
            with pytest.raises(Refused) as refused:
                await node.websocket(target=query(topics=SYS, **shown), **LOCAL)
            assert refused.value.status == 403

    @on_both
    @pytest.mark.parametrize("user", ["", "ada"])
    async def test_nor_the_session_of_an_operator(self, transport: str, user: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            operator = await node.connected(token=KEY)
            await operator.ask("subscribe", topic=SYS)
            await operator.ask("subscribe", topic="a:b")
            for lives in (True, False):
                thief = await node.client(transport)
                shown = {"token": node.token(user)} if user else {}
                reply = await thief.connect(session=operator.session, positions={}, **shown)
                assert reply["resumed"] is False
                assert SYS not in reply.get("topics", {})
                thief.stream.close()
                if lives:
                    operator.stream.close()
                await node.let_go()

    @on_both
    async def test_no_token_makes_anybody_the_user_of_the_keys(self, transport: str, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_key()) as node:
            operator = await node.connected(token=KEY)
            thief = await node.client(transport)
            (key,) = node.context.settings.auth.keys
            assert key.secret is not None
            forged = jwt.encode({"sub": "$operator"}, key.secret.key_bytes(), str(key.algorithm))
            refusal = await thief.connect(token=forged, session=operator.session)
            assert (refusal["op"], refusal["code"]) == ("error", 401)
            assert (await operator.ask("ping"))["op"] == "pong"

    async def test_the_session_of_who_was_a_client_of_this_machine_is_resumed_without(
        self, autojump_clock: MockClock
    ) -> None:
        async with open_memory_node() as node:
            await node.broker.save_session(SessionRecord(SessionId("old"), "", {SYS: None, "a:b": None}), 100)
            elsewhere = await node.websocket()
            assert (await elsewhere.connect(session="old"))["topics"].keys() == {"a:b"}
            await node.broker.save_session(SessionRecord(SessionId("older"), "", {SYS: None, "a:b": None}), 100)
            node.peer_host = "127.0.0.1"
            here = await node.websocket(**LOCAL)
            assert (await here.connect(session="older"))["topics"].keys() == {SYS, "a:b"}


class TestThisMachine:
    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.8.9.1"])
    async def test_without_keys_its_clients_are_operators(self, host: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.peer_host = host
            client = await node.websocket(Host="localhost:7500")
            await client.connect()
            assert await may_watch(client)
            connected = await (await from_here(node, query(topics=SYS))).receive()
            assert connected["topics"] == {SYS: {}}

    async def test_that_gives_them_nothing_else(self, autojump_clock: MockClock) -> None:
        async with open_memory_node(with_tokens_only()) as node:
            token = node.token("ada", subscribe=["a:*"], publish=[])
            client = await from_here(node, query(token=token))
            assert (await client.receive())["user"] == "ada"
            assert await may_watch(client)
            assert await code_of(client, "subscribe", topic="c:d") == 403
            assert await code_of(client, "publish", topic="a:b", data=1) == 403
            node.peer_host = "127.0.0.1"
            with pytest.raises(Refused) as refused:
                await node.websocket(target=query(topics=SYS), **LOCAL)
            assert refused.value.status == 401

    @pytest.mark.parametrize(
        "headers",
        [
            {"X_Forwarded_For": "127.0.0.1"},
            {"x_forwarded_for": ""},
            {"Forwarded": "for=127.0.0.1"},
            {"X_Real_IP": "192.0.2.1"},
            {"Via": "1.1 proxy"},
            {"Host": "app.example.com"},
            {"Origin": "https://app.example.com"},
            {"Origin": "http://127.0.0.1:8080"},
            {"Origin": "null"},
        ],
    )
    async def test_who_may_speak_for_others_is_none(self, headers: dict[str, str], autojump_clock: MockClock) -> None:
        anyones = settings(auth=AuthSettings(anonymous=True, origins=("*",)))
        async with open_memory_node(anyones) as node:
            assert await may_watch(await from_here(node, Origin="http://127.0.0.1:7500"))
            sent = {name: value or " " for name, value in headers.items()}
            assert not await may_watch(await from_here(node, **sent))

    @pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.1", "[2001:db8::1]", "localhost.example.com", "memory"])
    async def test_nor_is_who_comes_from_elsewhere(self, peer: str, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.peer_host = peer
            client = await node.websocket(**LOCAL)
            await client.connect()
            assert not await may_watch(client)

    async def test_nor_anybody_at_a_listener_for_others(self, autojump_clock: MockClock) -> None:
        everywhere = ListenSettings(websocket=Address("0.0.0.0", 7500))
        async with open_memory_node(settings(listen=everywhere)) as node:
            assert not await may_watch(await from_here(node))

    async def test_nor_a_device_which_cannot_say_who_sent_it(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.peer_host = "127.0.0.1"
            assert not await may_watch(await node.connected("device"))

    async def test_a_key_that_comes_to_be_takes_it_away(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            watcher, other = await from_here(node), await from_here(node)
            assert await may_watch(watcher)
            node.context.reload(with_key())
            assert await watcher.end() == (1012, "what is the server's now takes an API key")
            assert not await may_watch(other)
            assert not await may_watch(await from_here(node))

    async def test_also_while_its_client_waits(self, autojump_clock: MockClock) -> None:
        async with open_memory_node() as node:
            node.peer_host = "127.0.0.1"
            await node.broker.save_session(SessionRecord(SessionId("old"), "", {SYS: None, "a:b": None}), 100)
            node.broker.pause("load_session")
            client = await node.websocket(**LOCAL)
            await client.send({"op": "connect", "id": 1, "session": "old"})
            await node.broker.waiting("load_session")
            node.context.reload(with_key())
            node.broker.resume("load_session")
            assert (await client.receive())["topics"].keys() == {"a:b"}


def _revocation(node: MemoryNode, user: str) -> Revocation:
    now_s = node.context.clock.unix_s()
    return Revocation(until_s=now_s + 1000, user=user, before_s=now_s)
