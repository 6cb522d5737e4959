"""RELIABILITY row 4: nothing is asked of Redis for somebody whose token has not verified."""

from typing import Any

import pytest
import trio

from notifyd.auth.tokens import Signer
from notifyd.node import Node
from tests.kit.memory_node import policy, with_tokens_only
from tests.kit.redis_node import caller, open_redis_node, opened
from tests.kit.until import until
from tests.reliability.raw_clients import UPGRADE, RawWebSocket, masked

pytestmark = pytest.mark.guard(30)

AUTH = with_tokens_only().auth
OWN = frozenset({"heartbeat", "revoked"})
"""What a node asks by itself, whoever comes."""


class Asked:
    """Everything that a node asks of Redis on behalf of others."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[Any] = []
        self._servers = node.context.hub.broker._servers  # type: ignore[attr-defined]
        for name in ("execute", "evaluate", "scan"):
            monkeypatch.setattr(self._servers, name, self._spy(name, getattr(self._servers, name)))

    def _spy(self, name: str, call: Any) -> Any:
        async def asked(*arguments: Any, **options: Any) -> Any:
            about = getattr(arguments[0], "name", arguments)
            if not (isinstance(about, str) and about in OWN) and not _is_probe(arguments):
                self.questions.append((name, about))
            return await call(*arguments, **options)

        return asked


def _is_probe(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) > 1 and isinstance(arguments[0], str) and ":probe" in arguments[0]


def token(user: str = "ada", **changes: Any) -> str:
    return Signer(AUTH).sign(user, now_s=1_700_000_000, subscribe=["**"], publish=["**"], **changes)


def hostile_tokens() -> list[str]:
    good = token()
    head, claims, signature = good.split(".")
    return [
        "",
        "x",
        "..",
        good[:-2],
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[::-1]}",
        f"{claims}.{head}.{signature}",
        token(expires_in_s=1.0),
        "eyJhbGciOiJub25lIn0." + claims + ".",
        "a" * 3000,
    ]


async def test_strangers_reach_redis_with_nothing(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_redis_node(redis_url, redis_prefix, "n1", policy("**", joins=True), auth=AUTH) as node:
        ada = await caller(node, token=token())
        await ada.ask("subscribe", topic="a:b")
        await trio.sleep(0.3)
        asked = Asked(node, monkeypatch)
        for hostile in [*hostile_tokens(), None]:
            stranger = await opened(node)
            shown = {} if hostile is None else {"token": hostile}
            for op, fields in (
                ("subscribe", {"topic": "a:b"}),
                ("publish", {"topic": "a:b", "data": 1}),
                ("presence", {"topic": "a:b"}),
                ("history", {"topic": "a:b"}),
                ("connect", {"session": ada.session, "positions": {"a:b": {"epoch": "x", "offset": 1}}, **shown}),
            ):
                assert (await stranger.ask(op, **fields))["code"] == 401
            assert await stranger.code() == 4001
            await _knock(node, hostile, ada.session)
        assert asked.questions == []
        friend = await caller(node, token=token(), session=ada.session)
        await until(lambda: asked.questions)
        assert (await friend.ask("ping"))["op"] == "pong"


async def _knock(node: Node, hostile: str | None, session: str) -> None:
    """Show a token in the handshake, and where there is none yet, in `connect`."""
    assert node.websocket_address is not None
    stranger = await RawWebSocket.open(node.websocket_address.port)
    shown = "" if not hostile else f"Authorization: Bearer {hostile}\r\n"
    request = UPGRADE.replace(b"/ws ", f"/ws?session={session}&topics=a:b ".encode())
    answer = await stranger.upgrade(request.removesuffix(b"\r\n") + f"{shown}\r\n".encode())
    if b" 101 " in answer:
        await stranger.send(masked(1, b'{"op":"connect","id":1,"token":"x","session":"%s"}' % session.encode()))
        assert await stranger.close_code() == 4001
    stranger.close()
