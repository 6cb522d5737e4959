"""The shipped client against a whole node, over real sockets: no loss, no duplicate, in order, or a gap."""

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from notifyd.auth.tokens import Signer
from notifyd.client import AnswerLost, Client, ConnectionRefused, Feed, open_client
from notifyd.node import Node, open_node
from notifyd.settings import Address, Settings
from notifyd.settings.types import Access, AuthSettings, ListenSettings, NodeSettings, TokenKey, TopicPolicy
from notifyd.settings.values import Secret
from protocol.connecting import ConnectionState
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.framing import Encoding
from protocol.messages import Gap, Message
from protocol.topics import Pattern
from tests.certificates import Certificates, write_certificates

pytestmark = pytest.mark.guard(30)

ANY_PORT = Address("127.0.0.1", 0)
LOOPBACK = ListenSettings(websocket=ANY_PORT, device=ANY_PORT, http=None)
SECRET = "a secret of more than sixty-four bytes, as HS512 wants: 0123456789012345678901234567890"
WITH_TOKENS = AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),))
KINDS = ("ws-json", "ws-msgpack", "device-json", "device-msgpack")


def settings(**sections: Any) -> Settings:
    return Settings(**{"listen": LOOPBACK, "auth": AuthSettings(anonymous=True), **sections})


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with open_node(settings()) as node:
        yield node


def url_of(node: Node, kind: str) -> str:
    secure = node.settings.listen.tls is not None
    if kind.startswith("ws"):
        assert node.websocket_address is not None
        return f"{'wss' if secure else 'ws'}://localhost:{node.websocket_address.port}/ws"
    assert node.device_address is not None
    return f"{'device+tls' if secure else 'device'}://localhost:{node.device_address.port}"


@asynccontextmanager
async def client_of(node: Node, kind: str = "ws-json", *arguments: Any, **options: Any) -> AsyncIterator[Client]:
    encoding = Encoding.JSON if kind.endswith("json") else Encoding.MSGPACK
    async with open_client(url_of(node, kind), *arguments, encoding=encoding, **options) as client:
        yield client


def kick_all(node: Node) -> None:
    """End every connection as a bad network does: at once, without a word."""
    for connection in list(node.context.connections):
        connection.stream.close()


async def problem_of(client: Client) -> str:
    """Wait until an attempt has failed; tell why."""
    async for state in client.states():
        if state is ConnectionState.BACKING_OFF:
            break
    assert client.problem is not None
    return client.problem


async def take(messages: Feed, count: int) -> list[Any]:
    return [event.data for event in [await anext(messages) for _ in range(count)] if isinstance(event, Message)]


@pytest.mark.parametrize("publisher_kind", KINDS)
@pytest.mark.parametrize("subscriber_kind", KINDS)
async def test_every_transport_and_encoding_shares_a_topic(
    node: Node, publisher_kind: str, subscriber_kind: str
) -> None:
    data = {"text": "hé", "numbers": [1, -(2**63), 2**64 - 1, 1.5], "nothing": None}
    async with client_of(node, publisher_kind) as publisher, client_of(node, subscriber_kind) as subscriber:
        async with subscriber.subscribe("chat:room1") as messages:
            published = await publisher.publish("chat:room1", data)
            message = await anext(messages)
            assert isinstance(message, Message)
            assert (message.data, message.epoch, message.offset) == (data, published.epoch, published.offset)
        page = await publisher.history("chat:room1")
        assert [entry.data for entry in page.messages] == [data]


@pytest.mark.parametrize("kind", KINDS)
async def test_questions(node: Node, kind: str) -> None:
    async with client_of(node, kind) as client, client_of(node, kind) as other:
        async with client.subscribe("a"), other.subscribe("a"):
            members = await client.presence("a")
            assert {member.session for member in members} == {client.session, other.session}
        assert [member.session for member in await other.presence("a")] in ([], [client.session])
        with pytest.raises(RequestError) as refused:
            await client.call("orders.create", {"item": 1})
        assert refused.value.code is ErrorCode.NOT_FOUND
        await client.publish("b", 1, key="k")
        await client.publish("b", 2, key="k")
        assert [entry.data for entry in (await client.history("b")).messages] == [1]
        async with client.subscribe("c") as messages:
            await client.publish("c", "unheard", echo=False)
            await client.publish("c", "heard")
            assert await take(messages, 1) == ["heard"]


@pytest.mark.parametrize("kind", KINDS)
async def test_kicked_again_and_again_nothing_is_lost_doubled_or_out_of_order(node: Node, kind: str) -> None:
    """Row 11 of RELIABILITY, in small: publishers and subscribers are kicked while messages flow."""
    total, kicks = 120, 4
    seen: list[list[Any]] = [[], [], []]

    async def subscribe(place: int, began: trio.Event) -> None:
        async with client_of(node, kind) as client, client.subscribe("flow") as messages:
            began.set()
            seen[place] = await take(messages, total)

    async def publish() -> None:
        async with client_of(node, kind) as client:
            for number in range(total):
                await client.publish("flow", number)
                if number % (total // kicks) == total // kicks - 1 and number < total - 1:
                    kick_all(node)

    async with trio.open_nursery() as nursery:
        for place in range(3):
            began = trio.Event()
            nursery.start_soon(subscribe, place, began)
            await began.wait()
        nursery.start_soon(publish)
    assert seen == [list(range(total))] * 3


async def test_a_session_is_resumed(node: Node) -> None:
    async with client_of(node) as client, client.subscribe("a") as messages:
        session = client.session
        kick_all(node)
        async with client_of(node) as other:
            await other.publish("a", "meanwhile")
        assert await take(messages, 1) == ["meanwhile"]
        assert client.session == session
        assert client.welcome is not None
        assert client.welcome.resumed


async def test_a_session_is_resumed_by_another_process(node: Node) -> None:
    async with client_of(node) as client, client.subscribe("a") as messages:
        for number in range(3):
            await client.publish("a", number)
        first = await anext(messages)
        messages.acknowledge(first)
        await client.history("a")  # the server has had the acknowledgement
        session = client.session
        kick_all(node)
        async with client_of(node, session=session) as successor, successor.subscribe("a") as rest:
            assert await take(rest, 2) == [1, 2]
            assert successor.session == session


async def test_a_session_resumed_elsewhere_ends_the_client(node: Node) -> None:
    async with client_of(node, "device-msgpack") as client:
        await client.wait_connected()
        async with client.subscribe("a") as messages, client_of(node, session=client.session) as successor:
            await successor.wait_connected()
            with pytest.raises(ConnectionRefused, match="replaced") as refused:
                await anext(messages)
            assert refused.value.code is CloseCode.REPLACED


async def test_what_the_history_does_not_keep_is_a_gap() -> None:
    policy = TopicPolicy(match=Pattern("**"), history=5, publish=Access.ANYONE, subscribe=Access.ANYONE)
    async with (
        open_node(settings(topics=(policy,))) as node,
        client_of(node) as client,
        client.subscribe("a") as messages,
        client_of(node) as other,
    ):
        await other.publish("a", 0)
        assert await take(messages, 1) == [0]
        next(iter(node.context.connections)).stream.close()
        for number in range(1, 20):
            await other.publish("a", number)
        gap = await anext(messages)
        assert isinstance(gap, Gap)
        assert (gap.first, gap.reason) == (2, "expired")
        assert await take(messages, 20 - gap.last) == list(range(gap.last, 20))  # where it was back before the last
        await other.publish("a", "again")
        assert await take(messages, 1) == ["again"]


async def test_a_slow_consumer_gets_everything(node: Node) -> None:
    async with client_of(node, "device-msgpack") as client, client.subscribe("a", queue_messages=10) as messages:
        for number in range(100):
            await client.publish("a", number)
        assert await take(messages, 100) == list(range(100))
        await client.publish("a", "live")
        assert await take(messages, 1) == ["live"]


@pytest.mark.parametrize("kind", ["ws-json", "device-msgpack"])
async def test_a_node_that_drains_and_another_in_its_place(kind: str) -> None:
    """The history is gone with the embedded broker: the subscriber is told, and goes on."""
    draining = NodeSettings(name="n1", drain_s=0.2)
    async with open_node(settings(node=draining)) as node, trio.open_nursery() as nursery:
        listen = ListenSettings(websocket=node.websocket_address, device=node.device_address, http=None)
        client = await nursery.start(_keep_client, node, kind)
        async with client.subscribe("a") as messages:
            await client.publish("a", 1)
            assert await take(messages, 1) == [1]
            await node.drain()
            nursery.start_soon(_serve_again, settings(listen=listen), nursery)
            gap = await anext(messages)
            assert isinstance(gap, Gap)
            assert gap.reason == "epoch"
            await client.publish("a", 2)
            assert await take(messages, 1) == [2]
        nursery.cancel_scope.cancel()


async def _keep_client(node: Node, kind: str, *, task_status: trio.TaskStatus[Client]) -> None:
    async with client_of(node, kind) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def _serve_again(again: Settings, nursery: trio.Nursery) -> None:
    async with open_node(again):
        await trio.sleep_forever()


async def test_heartbeats_have_round_trips(node: Node) -> None:
    beats: list[float] = []
    done = trio.Event()

    def beat(round_trip_s: float) -> None:
        beats.append(round_trip_s)
        done.set()

    async with client_of(node, "device-msgpack", heartbeat_s=1, on_beat=beat) as client:
        await done.wait()
        assert client.round_trip_s == beats[0] < 1


async def test_tokens() -> None:
    async with open_node(settings(auth=WITH_TOKENS)) as node:
        signer = Signer(WITH_TOKENS)

        def sign(user: str) -> str:
            return signer.sign(user, now_s=time.time(), expires_in_s=60, subscribe=["a"], publish=["a"], topics=["a"])

        async with client_of(node, "ws-json", sign("ada")) as client:
            assert (await client.wait_connected()).user == "ada"
            async with client.subscribe("a") as messages:
                await client.publish("a", 1)
                assert await take(messages, 1) == [1]
            with pytest.raises(RequestError) as refused:
                await client.publish("b", 1)
            assert refused.value.code is ErrorCode.FORBIDDEN
            assert await client.refresh(sign("ada")) is not None
            with pytest.raises(RequestError):
                await client.refresh(sign("eve"))
        async with client_of(node, "device-msgpack", "nonsense") as client:
            with pytest.raises(ConnectionRefused, match="unauthorized"):
                await client.publish("a", 1)
        fetched: list[str] = []

        async def fetch() -> str:
            await trio.lowlevel.checkpoint()
            fetched.append("nonsense" if not fetched else sign("ada"))
            return fetched[-1]

        async with client_of(node, "ws-json", fetch) as client:
            await client.publish("a", 1)
        assert len(fetched) == 2


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory: Path = tmp_path_factory.mktemp("certificates")
    return write_certificates(directory)


@pytest.mark.parametrize("kind", ["ws-json", "device-msgpack"])
async def test_over_tls(certificates: Certificates, kind: str) -> None:
    listen = ListenSettings(websocket=ANY_PORT, device=ANY_PORT, http=None, tls=certificates.tls(client_ca=True))
    trusted = certificates.client_context(certificate="client")
    async with open_node(settings(listen=listen)) as node:
        async with client_of(node, kind, ssl_context=trusted) as client, client.subscribe("a") as messages:
            await client.publish("a", "x" * 50_000)
            assert await take(messages, 1) == ["x" * 50_000]
        async with client_of(node, kind, ssl_context=ssl.create_default_context()) as client:
            assert "certificate is not trusted" in await problem_of(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_is_too_large_is_refused_and_the_client_goes_on(node: Node, kind: str) -> None:
    async with client_of(node, kind) as client:
        with pytest.raises(RequestError, match="more than the server takes"):
            await client.publish("a", "x" * 100_000)
        await client.publish("a", "x" * 10_000)


async def test_nobody_serves_there(node: Node) -> None:
    url = url_of(node, "ws-json").removesuffix("/ws") + "/nowhere"
    async with open_client(url) as client:
        assert "HTTP 404" in await problem_of(client)


async def test_a_call_is_not_repeated_over_a_kick(node: Node) -> None:
    async with client_of(node) as client:
        await client.wait_connected()
        connection = next(iter(node.context.connections))

        async def call() -> None:
            with pytest.raises((AnswerLost, RequestError)):
                await client.call("slow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            connection.stream.close()
        await client.wait_connected()
