"""Clients that nobody here wrote, each as the README's tour uses it: `websockets`, curl, nc with xxd."""

import json
import subprocess
import sys

import pytest
import trio

from tests.reliability.node_process import NodeProcess, running_node

TOPIC = "chat:room1"

LIBRARY_CLIENT = """
import json, sys
from websockets.sync.client import connect

with connect(sys.argv[1], subprotocols=["notifyd.v1.json"]) as client:
    def ask(**request):
        client.send(json.dumps(request))
        return json.loads(client.recv())
    print(json.dumps([
        ask(op="connect", id=1),
        ask(op="subscribe", id=2, topic=sys.argv[2]),
        ask(op="publish", id=3, topic=sys.argv[2], data={"text": "grüße"}, echo=False),
        ask(op="history", id=4, topic=sys.argv[2]),
    ]))
"""


async def _output(*command: str, stdin: bytes = b"") -> str:
    done = await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return str(done.stdout.decode())


async def _shell(script: str) -> str:
    return await _output("sh", "-c", script)


def _url(node: NodeProcess) -> str:
    return f"ws://127.0.0.1:{node.ports['websocket']}/ws"


@pytest.mark.guard(30)
async def test_the_websockets_library_connects_subscribes_and_publishes() -> None:
    async with running_node() as node:
        answers = json.loads(await _output(sys.executable, "-c", LIBRARY_CLIENT, _url(node), TOPIC))
    assert [answer["op"] for answer in answers] == ["connected", "subscribed", "published", "history"]
    assert answers[3]["messages"][0]["data"] == {"text": "grüße"}


@pytest.mark.guard(30)
async def test_the_websockets_command_line_subscribes_by_its_url_and_curl_publishes() -> None:
    async with running_node() as node:
        command = [sys.executable, "-m", "websockets", f"{_url(node)}?topics={TOPIC}"]
        client = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdin is not None
        assert client.stdout is not None
        seen = ""
        while '"op":"connected"' not in seen:
            seen += (await client.stdout.receive_some()).decode()
        assert '"id"' not in seen, "a push, for nobody asked"
        published = await _curl(node, "/v1/publish", json.dumps({"topic": TOPIC, "data": {"text": "hello"}}))
        assert published["offset"] == 1
        while '"data":{"text":"hello"}' not in seen:
            seen += (await client.stdout.receive_some()).decode()
        await client.stdin.aclose()
        with trio.fail_after(10):
            await client.wait()
        await client.stdout.aclose()


@pytest.mark.guard(30)
async def test_nc_and_xxd_see_a_heartbeat_answered_with_its_own_timestamp() -> None:
    async with running_node() as node:
        ping = "48454152 00 0000000000003039 000000"
        seen = await _shell(f"echo '{ping}' | xxd -r -p | nc -q 1 127.0.0.1 {node.ports['device']} | xxd -p")
    assert seen.strip() == "48454152010000000000003039000000"


async def _curl(node: NodeProcess, path: str, body: str | None = None) -> dict:
    url = f"http://127.0.0.1:{node.ports['http']}{path}"
    posting = () if body is None else ("-H", "Content-Type: application/json", "-d", body)
    return json.loads(await _output("curl", "-s", url, *posting))
