"""RELIABILITY row 17: a token's life. Expired: refreshed or closed within 1 s. Revoked: closed on every node within
2 s, and refused from then on. A rotation of keys drops nobody."""

import base64
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
import trio

from tests.http_client import HttpClient
from tests.kit.redis_process import RedisServer
from tests.kit.tcp_proxy import open_proxy
from tests.kit.until import until
from tests.reliability.cluster_process import wait_ready
from tests.reliability.node_process import NodeProcess, running_node
from tests.reliability.raw_clients import UPGRADE, RawDevice, RawWebSocket, data_frame, masked

pytestmark = pytest.mark.guard(60)

EXPIRED_S = 1.0
REVOKED_S = 2.0
UNAUTHORIZED, FORBIDDEN = 4001, 4003
KEYS = {kid: base64.b64encode(kid.encode() * 20).decode() for kid in ("old", "new")}
HISTORY = '[[topics]]\nmatch = "**"\nhistory = 1000\n'


def make_token(user: str = "ann", *, kid: str = "old", lives_s: int = 600, **claims: Any) -> str:
    now_s = int(time.time())
    rights = {"subscribe": ["**"], "publish": ["**"]}
    given = {"sub": user, "iat": now_s, "exp": now_s + lives_s, **rights, **claims}
    return jwt.encode(given, KEYS[kid], "HS512", {"kid": kid})


def new_token(user: str = "ann", **claims: Any) -> str:
    """A token as it is issued after a revocation: in a later second."""
    return make_token(user, iat=int(time.time()) + 2, **claims)


def configuration(*kids: str) -> str:
    keys = ", ".join(f'{{ algorithm = "HS512", secret = "{KEYS[kid]}", kid = "{kid}" }}' for kid in kids)
    return f"[auth]\nkeys = [{keys}]\n{HISTORY}"


# --- clients of both transports ---------------------------------------------------------------------------------------


class Client:
    """A client of either transport that hears all that comes for it: what it is told, and how it ends."""

    def __init__(self, raw: RawWebSocket | RawDevice) -> None:
        self._raw = raw
        self.connected: dict[str, Any] = {}
        self.heard: list[Any] = []
        self.replies: dict[int, Any] = {}
        self.close_code: int | None = None
        self.closed = trio.Event()
        self.closed_unix_s = 0.0
        self._news = trio.Event()

    @property
    def session(self) -> str:
        return str(self.connected["session"])

    @property
    def is_open(self) -> bool:
        return not self.closed.is_set()

    async def ask(self, op: str, **fields: Any) -> Any:
        number = len(self.replies) + 10
        self.replies[number] = None
        message = {"op": op, "id": number, **fields}
        frame = data_frame(message) if isinstance(self._raw, RawDevice) else masked(1, json.dumps(message).encode())
        await self._raw.send(frame)
        while self.replies[number] is None:
            await self._news.wait()
        return self.replies[number]

    async def listen(self) -> None:
        """Hear everything until the end."""
        try:
            while await self._hear():
                self._news.set()
                self._news = trio.Event()
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.closed_unix_s = time.time()
        self.closed.set()
        self._raw.close()

    async def _hear(self) -> bool:
        """Take one frame; False for the one that says goodbye."""
        if isinstance(self._raw, RawDevice):
            _, _, message = await self._raw.frame()
            if message is not None and message["op"] == "error" and "id" not in message:
                self.close_code = message["code"]
                return False
        else:
            opcode, payload = await self._raw.frame()
            if opcode == 8:
                self.close_code = int.from_bytes(payload[:2], "big")
                return False
            message = json.loads(payload) if opcode == 1 else None
        if message is not None and "id" in message:
            self.replies[message["id"]] = message
        elif message is not None:
            self.heard.append(message)
        return True


KINDS = ("websocket", "device")


async def dial(node: NodeProcess, kind: str, token: str, **fields: Any) -> tuple[RawWebSocket | RawDevice, Any]:
    """Connect; the connection, and the answer; "closed" where the connection ended first."""
    raw: RawWebSocket | RawDevice
    if kind == "device":
        raw = await RawDevice.open(node.ports["device"])
    else:
        raw = await RawWebSocket.open(node.ports["websocket"])
        assert b" 101 " in await raw.upgrade()
    try:
        return raw, await raw.request({"op": "connect", "id": 1, "token": token, **fields})
    except (ValueError, EOFError, trio.BrokenResourceError):  # the first is a Close frame
        return raw, {"op": "closed"}


async def connect(nursery: trio.Nursery, node: NodeProcess, kind: str, token: str, **fields: Any) -> Client:
    raw, answer = await dial(node, kind, token, **fields)
    assert answer["op"] == "connected", answer
    client = Client(raw)
    client.connected = answer
    nursery.start_soon(client.listen)
    return client


LET_IN = {"connected"}
REFUSED = {"401 the token is missing or not accepted"}


async def answers_to(node: NodeProcess, token: str) -> set[str]:
    """What a node answers to a token by every way in."""
    answers = set()
    for kind in KINDS:
        raw, answer = await dial(node, kind, token)
        answers.add(answer["op"] if answer["op"] == "connected" else f"{answer['code']} {answer['message']}")
        raw.close()
    for upgrade in (
        UPGRADE.replace(b"/ws", b"/ws?token=" + quote(token).encode()),
        UPGRADE.removesuffix(b"\r\n") + f"Authorization: Bearer {token}\r\n\r\n".encode(),
    ):
        websocket = await RawWebSocket.open(node.ports["websocket"])
        head = await websocket.upgrade(upgrade)
        if b" 101 " in head:
            answers.add("connected")
        else:
            error = json.loads(await websocket.read_rest())["error"]
            answers.add(f"{error['code']} {error['message']}")
        websocket.close()
    return answers


async def wait_answered(node: NodeProcess, token: str, wanted: set[str]) -> None:
    with trio.fail_after(REVOKED_S):
        while await answers_to(node, token) != wanted:  # noqa: ASYNC110 - what another process does is no event
            await trio.sleep(0.02)


async def wait_all_closed(clients: Sequence[Client], seconds: float, code: int) -> float:
    """Wait until all are closed, which they have to be in time and with this code; how long it took."""
    began_s = trio.current_time()
    with trio.move_on_after(seconds):
        for client in clients:
            await client.closed.wait()
    assert [client.connected["node"] for client in clients if client.is_open] == []
    assert {client.close_code for client in clients} == {code}
    return trio.current_time() - began_s


@asynccontextmanager
async def opened(settings: dict[str, str] | None = None) -> AsyncIterator[NodeProcess]:
    keys = f'[{{ algorithm = "HS512", secret = "{KEYS["old"]}", kid = "old" }}]'
    async with running_node({"AUTH__ANONYMOUS": "false", "AUTH__KEYS": keys, **(settings or {})}) as node:
        yield node


async def revoke(node: NodeProcess, **named: Any) -> None:
    answer = await HttpClient(node.ports["http"]).post("/v1/revocations", named)
    assert answer.status == 200, answer.body


async def still_serve(clients: Sequence[Client]) -> None:
    for client in clients:
        assert (await client.ask("ping"))["op"] == "pong"


# --- expired ----------------------------------------------------------------------------------------------------------


async def test_an_expired_token_ends_its_connection_within_a_second(
    nursery: trio.Nursery, report: Callable[[str], None]
) -> None:
    async with opened() as node:
        expires = int(time.time()) + 2
        clients = [await connect(nursery, node, kind, make_token(exp=expires)) for kind in KINDS * 5]
        assert {client.connected["expires"] for client in clients} == {expires}
        await wait_all_closed(clients, 2 + EXPIRED_S, UNAUTHORIZED)
        late_s = [client.closed_unix_s - expires for client in clients]
        assert min(late_s) >= 0
        assert max(late_s) <= EXPIRED_S
        report(f"row 17: an expired token ended its connection after {max(late_s) * 1000:.0f} ms")


async def test_a_refreshed_one_goes_on_for_as_long_as_the_new_token_says(nursery: trio.Nursery) -> None:
    async with opened() as node:
        expires = int(time.time()) + 2
        clients = [await connect(nursery, node, kind, make_token(exp=expires)) for kind in KINDS]
        for client in clients:
            refreshed = await client.ask("refresh", token=make_token(exp=expires + 2))
            assert (refreshed["op"], refreshed["expires"]) == ("refreshed", expires + 2)
            assert (await client.ask("refresh", token=make_token(exp=1)))["code"] == 401  # and nothing has changed
        await trio.sleep(expires + EXPIRED_S - time.time())
        await still_serve(clients)
        await wait_all_closed(clients, 2 + EXPIRED_S, UNAUTHORIZED)
        late_s = [client.closed_unix_s - expires - 2 for client in clients]
        assert min(late_s) >= 0
        assert max(late_s) <= EXPIRED_S


# --- a rotation of keys -----------------------------------------------------------------------------------------------


async def test_a_rotation_of_keys_drops_nobody(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_text(configuration("old"))

    async def rotate_to(*kids: str) -> None:
        reloads = len(node.events("reloaded"))
        path.write_text(configuration(*kids))
        node.process.send_signal(signal.SIGHUP)
        await node.wait_logged("reloaded", reloads + 1)

    async with running_node({"AUTH__ANONYMOUS": "false"}, config=path) as node:
        clients = [await connect(nursery, node, kind, make_token()) for kind in KINDS * 5]
        for client in clients:
            assert (await client.ask("subscribe", topic="news"))["op"] == "subscribed"
        publisher = await connect(nursery, node, "device", make_token())
        sent = 0
        async with trio.open_nursery() as publishing:

            async def publish() -> None:
                nonlocal sent
                while True:
                    assert (await publisher.ask("publish", topic="news", data=sent))["op"] == "published"
                    sent += 1
                    await trio.sleep(0.01)

            publishing.start_soon(publish)
            await rotate_to("old", "new")
            clients += [await connect(nursery, node, kind, make_token(kid=kid)) for kid in KEYS for kind in KINDS]
            await rotate_to("new")
            assert await answers_to(node, make_token()) == REFUSED
            assert await answers_to(node, make_token(kid="new")) == LET_IN
            for client in clients[: len(clients) // 2]:
                assert (await client.ask("refresh", token=make_token(kid="new")))["op"] == "refreshed"
            await rotate_to("new")
            publishing.cancel_scope.cancel()
        await still_serve([*clients, publisher])
        for client in clients[:10]:
            received = [message["data"] for message in client.heard]
            assert received == list(range(len(received)))
            assert len(received) >= sent > 0


# --- revoked ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "redis"])
def shared(request: pytest.FixtureRequest) -> dict[str, str]:
    """What a node is told of its broker, and whether there are others."""
    if request.param == "memory":
        return {}
    url, prefix = map(request.getfixturevalue, ("redis_url", "redis_prefix"))
    return {"BROKER__URL": url, "BROKER__PREFIX": prefix}


@asynccontextmanager
async def nodes(shared: dict[str, str]) -> AsyncIterator[list[NodeProcess]]:
    """Two nodes over one Redis, or one by itself."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(opened({**shared, "NODE__NAME": f"n{number}"}))
            for number in range(2 if shared else 1)
        ]


async def crowd(nursery: trio.Nursery, running: Sequence[NodeProcess], token: str) -> list[Client]:
    return [await connect(nursery, node, kind, token) for node in running for kind in KINDS * 3]


async def test_a_revoked_user_is_disconnected_everywhere_and_stays_out(
    shared: dict[str, str], nursery: trio.Nursery, report: Callable[[str], None]
) -> None:
    async with nodes(shared) as running:
        stolen = make_token("ann")
        ann = await crowd(nursery, running, make_token("ann"))
        bob = await crowd(nursery, running, make_token("bob"))
        later = await crowd(nursery, running, new_token("ann"))
        await revoke(running[0], user="ann")
        took_s = await wait_all_closed(ann, REVOKED_S, UNAUTHORIZED)
        report(f"row 17: a revoked user was off {len(running)} node(s) after {took_s * 1000:.0f} ms")
        await still_serve([*bob, *later])
        refused = await bob[0].ask("refresh", token=stolen)
        assert (refused["code"], refused["message"]) == (401, "the token is missing or not accepted")
        async with AsyncExitStack() as stack:
            if shared:
                running.append(await stack.enter_async_context(opened({**shared, "NODE__NAME": "late"})))
            for node in running:
                assert await answers_to(node, stolen) == REFUSED
                assert await answers_to(node, new_token("ann")) == LET_IN
                assert await answers_to(node, make_token("bob")) == LET_IN
                listed = json.loads(await node.get("/v1/revocations"))["revocations"]
                assert [one["user"] for one in listed] == ["ann"]


async def test_a_revoked_token_is_one_token(shared: dict[str, str], nursery: trio.Nursery) -> None:
    async with nodes(shared) as running:
        stolen, kept = make_token("ann", jti="stolen"), make_token("ann", jti="kept")
        thieves, ann = [await crowd(nursery, running, token) for token in (stolen, kept)]
        saved = await connect(nursery, running[-1], "device", stolen)
        assert (await saved.ask("refresh", token=kept))["op"] == "refreshed"
        await revoke(running[-1], token_id="stolen", ttl="1h")
        await wait_all_closed(thieves, REVOKED_S, UNAUTHORIZED)
        await still_serve([*ann, saved])
        for node in running:
            assert await answers_to(node, stolen) == REFUSED
            assert await answers_to(node, kept) == LET_IN


async def test_a_revocation_is_not_missed_by_a_node_that_hears_nothing_just_then(
    redis_server: RedisServer, redis_url: str, redis_prefix: str, nursery: trio.Nursery
) -> None:
    """Its connection for messages is cut: it learns of the revocation when that is back, the other one being well."""
    shared = {"BROKER__URL": redis_url, "BROKER__PREFIX": redis_prefix}
    async with nodes(shared) as running:
        for number in range(5):
            stolen = make_token("ann", jti=f"stolen{number}")
            thieves = await crowd(nursery, running, stolen)
            await until(lambda: redis_server.count_clients("pubsub") >= len(running))  # all hear, also again
            assert redis_server.kill_clients("pubsub") >= len(running)
            await revoke(running[0], token_id=f"stolen{number}")
            await wait_all_closed(thieves, REVOKED_S, UNAUTHORIZED)
            for node in running:
                assert await answers_to(node, stolen) == REFUSED


async def test_a_revocation_ends_with_its_time(shared: dict[str, str]) -> None:
    async with nodes(shared) as running:
        token = make_token("ann", jti="t1")
        await revoke(running[0], token_id="t1", ttl=2)
        await wait_answered(running[-1], token, REFUSED)
        await trio.sleep(1.5)
        await wait_answered(running[-1], token, LET_IN)


async def test_who_connects_while_the_token_is_revoked_is_not_forgotten(
    shared: dict[str, str], nursery: trio.Nursery
) -> None:
    """A connection that was let in at the very moment, still resuming its session, ends like the others."""
    async with nodes(shared) as running:
        stolen = make_token("ann", jti="stolen")
        sessions = {node: [await connect(nursery, node, "device", stolen) for _ in range(10)] for node in running}
        for clients in sessions.values():
            for client in clients:
                await client.ask("subscribe", topic="news")
        clients = []

        async def come_back(node: NodeProcess, kind: str, session: str) -> None:
            """Take the session over from whoever else does so, until the token is refused."""
            code = None
            while code != 401:
                raw, answer = await dial(node, kind, stolen, session=session)
                code = answer.get("code")
                if answer["op"] == "connected":
                    client = Client(raw)
                    client.connected = answer
                    clients.append(client)
                    coming.start_soon(client.listen)
                else:
                    raw.close()

        with trio.fail_after(20):
            async with trio.open_nursery() as coming:
                for node, held in sessions.items():
                    for client in held:
                        for kind in KINDS:
                            coming.start_soon(come_back, node, kind, client.session)
                await trio.sleep(0.3)
                await revoke(running[0], token_id="stolen")
                revoked_unix_s = time.time()
        assert max(client.closed_unix_s for client in clients) <= revoked_unix_s + REVOKED_S
        assert {client.close_code for client in clients} <= {UNAUTHORIZED, 4100}


async def test_a_client_whose_session_is_still_on_its_way_is_not_forgotten_either(
    redis_server: RedisServer, redis_url: str, redis_prefix: str, nursery: trio.Nursery
) -> None:
    """Its token was good when it came; Redis is far away; the revocation is there before the session."""
    shared = {"BROKER__URL": redis_url, "BROKER__PREFIX": redis_prefix}
    async with (
        open_proxy(redis_server.port) as proxy,
        opened({**shared, "NODE__NAME": "near"}) as near,
        opened({**shared, "BROKER__URL": proxy.url, "NODE__NAME": "far"}) as far,
    ):
        for number, kind in enumerate(KINDS):
            await wait_ready(far)  # what it reaches Redis through stood still while it started
            stolen = make_token("ann", jti=f"stolen{number}")
            former = await connect(nursery, near, kind, stolen)
            await former.ask("subscribe", topic="news")
            proxy.delay_ms = 100
            async with trio.open_nursery() as coming:

                async def come_back(kind: str = kind, token: str = stolen, session: str = former.session) -> None:
                    raw, answer = await dial(far, kind, token, session=session)
                    assert answer.get("code", 401) == 401, answer
                    if answer["op"] == "connected":
                        client = Client(raw)
                        client.connected = answer
                        coming.start_soon(client.listen)
                        await wait_all_closed([client], REVOKED_S, UNAUTHORIZED)
                    raw.close()

                coming.start_soon(come_back)
                await trio.sleep(0.05)
                await revoke(near, token_id=f"stolen{number}")
            proxy.delay_ms = 0


async def test_an_operator_disconnects_a_session_by_any_node(shared: dict[str, str], nursery: trio.Nursery) -> None:
    async with nodes(shared) as running:
        for kind in KINDS:
            ended, other = [await connect(nursery, running[-1], kind, make_token()) for _ in range(2)]
            path = f"/v1/connections/{ended.session}"
            assert (await HttpClient(running[0].ports["http"]).ask("DELETE", path)).status == 204
            await wait_all_closed([ended], REVOKED_S, FORBIDDEN)
            await still_serve([other])
            assert (await HttpClient(running[0].ports["http"]).ask("DELETE", path)).status == 404
