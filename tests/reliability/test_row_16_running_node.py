"""RELIABILITY row 16 on a running node: hostile tokens by every way in. None gets in, all get one answer."""

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from notifyd.settings import AuthSettings
from tests.http_client import HttpClient
from tests.reliability.node_process import NodeProcess, started_node
from tests.reliability.raw_clients import UPGRADE, RawDevice, RawWebSocket, data_frame, let_go_of_all, masked
from tests.reliability.tokens import (
    AUDIENCE,
    ISSUER,
    good_claims,
    good_tokens,
    hostile_tokens,
    make_key_ring,
    make_token,
)

CPU_S = 0.005
MOST_LINES = 30
"""What all the refusals of this file may write into the log: a few lines a minute."""

API_KEY = "an API key of this test: " + base64.b64encode(bytes(30)).decode()
HEAD_CHARACTERS = 15 * 1024
CONNECT_CHARACTERS = 3900
REFRESH_CHARACTERS = 60 * 1024

Answer = tuple[Any, ...]
Way = Callable[[NodeProcess, str], Awaitable[Answer]]


def _to_toml(auth: AuthSettings) -> str:
    """Write the keys as an inline table: JSON's strings are TOML's."""
    tables = []
    for key in auth.keys:
        members = {"algorithm": key.algorithm, "kid": key.kid, "public_key": key.public_key, "jwks": key.jwks}
        members["secret"] = key.secret.reveal() if key.secret else None
        written = [f"{name} = {json.dumps(value)}" for name, value in members.items() if value is not None]
        tables.append("{ " + ", ".join(written) + " }")
    return "[" + ", ".join(tables) + "]"


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    settings = {
        "AUTH__ANONYMOUS": "false",
        "AUTH__KEYS": _to_toml(make_key_ring().auth),
        "AUTH__ISSUER": ISSUER,
        "AUTH__AUDIENCE": AUDIENCE,
        "AUTH__API_KEYS": json.dumps([API_KEY, "another key that nobody knows of"]),
        "LIMITS__MESSAGES": "{ rate = 1e4, burst = 1e4 }",
    }
    with started_node(settings) as node:
        node.api_key = API_KEY
        yield node


@pytest.fixture(autouse=True)
async def _nothing_is_told_of_tokens(node: NodeProcess) -> AsyncIterator[None]:
    """After each test: nobody is connected, no bug was seen, and no token stands in the log."""
    yield
    let_go_of_all()
    await node.wait_metric("connections", 0)
    assert await node.metric("barrier_hits_total") == 0
    assert node.failures == []


async def _upgrade(node: NodeProcess, request: bytes) -> Answer:
    """The whole answer to an upgrade, or the word for having been let in."""
    client = await RawWebSocket.open(node.ports["websocket"])
    head = await client.upgrade(request)
    is_open = b" 101 " in head
    answer = json.loads((await client.frame())[1])["op"] if is_open else head + await client.read_rest()
    client.close()
    return (answer,)


async def by_header(node: NodeProcess, token: str) -> Answer:
    line = f"Authorization: Bearer {token}\r\n\r\n".encode()
    return await _upgrade(node, UPGRADE.removesuffix(b"\r\n") + line)


async def by_query(node: NodeProcess, token: str) -> Answer:
    return await _upgrade(node, UPGRADE.replace(b"/ws", b"/ws?token=" + quote(token, safe="").encode()))


async def by_connect(node: NodeProcess, token: str) -> Answer:
    client = await RawWebSocket.open(node.ports["websocket"])
    await client.upgrade()
    answer = await client.request({"op": "connect", "id": 1, "token": token})
    if answer["op"] == "connected":
        client.close()
        return ("connected",)
    return answer, await client.close_code()


async def by_device_connect(node: NodeProcess, token: str) -> Answer:
    client = await RawDevice.open(node.ports["device"])
    answer = await client.request({"op": "connect", "id": 1, "token": token})
    if answer["op"] == "connected":
        client.close()
        return ("connected",)
    return answer, await client.error_code()


ERROR = {
    "op": "error",
    "code": 401,
    "reason": "unauthorized",
    "message": "the token is missing or not accepted",
    "id": 1,
}
REFUSED = b"HTTP/1.1 401 Unauthorized\r\n"
WAYS: dict[str, tuple[Way, int]] = {
    "Authorization": (by_header, HEAD_CHARACTERS),
    "?token=": (by_query, HEAD_CHARACTERS),
    "connect on a WebSocket": (by_connect, CONNECT_CHARACTERS),
    "connect on a device link": (by_device_connect, CONNECT_CHARACTERS),
}


def _fits(name: str, token: str, way: str, most_characters: int) -> bool:
    """Whether a token can be shown at all: what cannot is refused for its form, as other tests show."""
    if name == "lone surrogate":
        return False  # neither UTF-8 nor JSON can carry it
    if way == "Authorization":
        printable = all(" " <= character <= "~" for character in token)
        return printable and token == token.strip() and len(token) <= most_characters
    return len(quote(token, safe="") if way == "?token=" else json.dumps(token)) <= most_characters


def _assert_not_in_log(node: NodeProcess, tokens: list[str]) -> None:
    assert len(node.events("token_refused")) <= MOST_LINES
    text = json.dumps(node.log)
    parts = {part for token in tokens for part in token.split(".") if len(part) >= 12}
    assert [part[:40] for part in parts if part in text] == []


@pytest.mark.guard(60)
@pytest.mark.parametrize("name", WAYS)
async def test_no_hostile_token_is_accepted_and_all_get_one_answer(
    name: str, node: NodeProcess, report: Callable[[str], None]
) -> None:
    way, most_characters = WAYS[name]
    hostile = {
        kind: token
        for kind, token in hostile_tokens(int(time.time())).items()
        if _fits(kind, token, name, most_characters)
    }
    assert len(hostile) >= 300
    answers = set()
    before_s = node.cpu_s
    for token in hostile.values():
        answers.add(json.dumps(await way(node, token), default=bytes.decode))
    used_s = (node.cpu_s - before_s) / len(hostile)
    (answer,) = [json.loads(answer) for answer in answers]
    if len(answer) == 1:
        assert answer[0].encode().startswith(REFUSED)
        body = json.loads(answer[0].partition("\r\n\r\n")[2])
        assert body == {"error": {name: ERROR[name] for name in ("code", "reason", "message")}}
    else:
        assert answer == [ERROR, 4001]
    assert used_s <= CPU_S
    _assert_not_in_log(node, list(hostile.values()))
    report(f"row 16, by {name}: {len(hostile)} hostile tokens refused, {used_s * 1000:.1f} ms of CPU each, all in all")


@pytest.mark.guard(60)
@pytest.mark.parametrize("name", WAYS)
async def test_every_good_token_is_accepted(name: str, node: NodeProcess) -> None:
    way, most_characters = WAYS[name]
    good = good_tokens(int(time.time()))
    for token in good.values():
        assert len(quote(token)) <= most_characters
        assert await way(node, token) == ("connected",)
    _assert_not_in_log(node, list(good.values()))


@pytest.mark.guard(60)
async def test_a_refresh_is_held_to_the_same(node: NodeProcess) -> None:
    now_s = int(time.time())
    client = await RawDevice.open(node.ports["device"])
    assert (await client.request({"op": "connect", "id": 9, "token": make_token(good_claims(now_s))}))["user"] == "ann"
    hostile = {k: token for k, token in hostile_tokens(now_s).items() if _fits(k, token, "refresh", REFRESH_CHARACTERS)}
    before_s = node.cpu_s
    for token in hostile.values():
        assert await client.request({"op": "refresh", "id": 1, "token": token}) == ERROR
    assert (node.cpu_s - before_s) / len(hostile) <= CPU_S
    own = {name: token for name, token in good_tokens(now_s).items() if "user" not in name}
    for token in own.values():
        assert (await client.request({"op": "refresh", "id": 1, "token": token}))["op"] == "refreshed"
    other = await client.request({"op": "refresh", "id": 1, "token": make_token(good_claims(now_s, sub="bob"))})
    assert (other["code"], other["reason"]) == (403, "forbidden")
    _assert_not_in_log(node, [*hostile.values(), *own.values()])


@pytest.mark.parametrize("kind", ["header: deep", "claims: deep lists", "claims: deep objects", "exp 999999999999"])
async def test_the_largest_that_are_read_cost_no_more(kind: str, node: NodeProcess) -> None:
    token = hostile_tokens(int(time.time()))[kind]
    before_s = node.cpu_s
    for _ in range(40):
        assert b" 401 " in (await by_header(node, token))[0]
    assert (node.cpu_s - before_s) / 40 <= CPU_S


@pytest.mark.guard(30)
async def test_a_mebibyte_is_refused_unread(node: NodeProcess) -> None:
    huge = "A" * 2**20
    websocket = await RawWebSocket.open(node.ports["websocket"])
    assert b" 431 " in await websocket.upgrade(UPGRADE.replace(b"/ws", b"/ws?token=" + huge[: 2**17].encode()))
    before_s = node.cpu_s
    frames = {RawDevice: data_frame({"op": "connect", "id": 1, "token": huge})}
    device = await RawDevice.open(node.ports["device"])
    await device.send(frames[RawDevice][:16])  # the header alone is enough
    assert await device.error_code() == 4013
    client = await RawWebSocket.open(node.ports["websocket"])
    await client.upgrade()
    await client.send(masked(1, b"", announced=2**20))
    assert await client.close_code() == 1009
    assert node.cpu_s - before_s <= 10 * CPU_S


HTTP_KEYS = ["x", API_KEY[:-1], API_KEY + "x", API_KEY.upper(), API_KEY * 100, "\t" + API_KEY[1:], "%s" * 50]


@pytest.mark.parametrize("path", ["/v1/topics", "/v1/tree", "/metrics", "/v1/connections"])
async def test_wrong_api_keys_get_one_answer(path: str, node: NodeProcess) -> None:
    strangers = [HttpClient(node.ports["http"], key=key) for key in HTTP_KEYS]
    answers = [await stranger.get(path) for stranger in strangers]
    headers: list[list[tuple[str, str]]] = [
        [],
        [("authorization", "Bearer")],
        [("authorization", "Basic " + base64.b64encode(API_KEY.encode()).decode())],
        [("authorization", API_KEY)],
        [("authorization", f"Bearer {API_KEY}")] * 2,
        [("authorization", f"Bearer {make_token(good_claims(int(time.time())))}")],
    ]
    answers += [await HttpClient(node.ports["http"]).ask("GET", path, headers=given) for given in headers]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert (await HttpClient(node.ports["http"], key=API_KEY).get(path)).status == 200
    _assert_not_in_log(node, [API_KEY])
