"""`limits.user_messages`: one rate for all connections of a user, on either transport."""

import json

import pytest

from notifyd.auth.tokens import Signer
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.reliability.node_process import running_node
from tests.reliability.raw_clients import RawDevice, RawWebSocket

SECRET = "a secret of this test, long enough for HS512: 0123456789abcdef0123456789abcdef"
BURST = 10
REQUEST = {"op": "presence", "id": 2, "topic": "a"}


def _connect(user: str) -> dict[str, object]:
    signer = Signer(AuthSettings(keys=(TokenKey(algorithm="HS512", secret=Secret(SECRET)),)))
    return {"op": "connect", "id": 1, "token": signer.sign(user, now_s=1_700_000_000, subscribe=["**"])}


@pytest.mark.guard(30)
async def test_two_connections_of_a_user_share_a_rate() -> None:
    settings = {
        "AUTH__KEYS": f'[{{ algorithm = "HS512", secret = {json.dumps(SECRET)} }}]',
        "LIMITS__USER_MESSAGES": f"{{ rate = 0.01, burst = {BURST} }}",
    }
    async with running_node(settings) as node:
        device = await RawDevice.open(node.ports["device"])
        assert (await device.request(_connect("ann")))["op"] == "connected"
        websocket = await RawWebSocket.open(node.ports["websocket"])
        await websocket.upgrade()
        assert (await websocket.request(_connect("ann")))["op"] == "connected"
        replies = []
        for _ in range(BURST):
            replies.append(await device.request(REQUEST))
            replies.append(await websocket.request(REQUEST))
        answered = [reply for reply in replies if reply["op"] == "presence"]
        refused = [reply for reply in replies if reply["op"] == "error"]
        assert len(answered) == BURST
        assert {(reply["code"], reply["reason"]) for reply in refused} == {(429, "rate_limited")}
        assert all(reply["retry_after"] > 1 for reply in refused)
        other = await RawDevice.open(node.ports["device"])
        assert (await other.request(_connect("bob")))["op"] == "connected"
        assert (await other.request(REQUEST))["op"] == "presence"
        assert (await device.request({"op": "ping", "id": 3}))["op"] == "pong"
