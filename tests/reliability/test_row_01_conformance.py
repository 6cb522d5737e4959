"""RELIABILITY row 1: a WebSocket conformance suite on the real stack, plain and over TLS.

A node in a process of its own serves `/echo` with `[debug] echo`; the driver is a raw socket that knows the RFC only.
"""

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from notifyd.node import open_node
from notifyd.settings import Address, AuthSettings, ListenSettings, Settings
from tests.certificates import Certificates, certificates
from tests.reliability.websocket_cases import CASES
from tests.reliability.websocket_driver import Case, Driver, run
from tests.unit.transport.client_frames import PING, PONG, TEXT, frame

__all__ = ["certificates"]

START_S = 20.0


@dataclass(frozen=True)
class EchoNode:
    """A running node: its WebSocket port, how to speak TLS to it (None: plain), and the port of its metrics."""

    port: int
    tls: ssl.SSLContext | None
    http_port: int

    def metric(self, name: str) -> float:
        """The sum of a counter over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"notifyd_{name}[ {{]", line))

    def all_left(self) -> bool:
        """Whether every connection is released; those just closed get a moment."""
        end_s = time.monotonic() + START_S
        while self.metric("connections") and time.monotonic() < end_s:
            pass
        return not self.metric("connections")


def _wait_serving(process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "serving":
                return {name: entry[name].rpartition(":")[2] for name in ("websocket", "http")}
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.fail(f"the node does not serve: {log.read_text()}")


@pytest.fixture(scope="module", params=["ws", "wss"])
def node(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EchoNode]:
    """A node that echoes. Whatever the cases did, it must still run at the end, and no barrier was hit."""
    environment = {
        **os.environ,
        "NOTIFYD_AUTH__ANONYMOUS": "true",
        "NOTIFYD_DEBUG__ECHO": "true",
        "NOTIFYD_NODE__DRAIN": "0s",
    }
    tls = None
    if request.param == "wss":
        environment["NOTIFYD_LISTEN__TLS__CERTIFICATE"] = str(certificates.server)
        environment["NOTIFYD_LISTEN__TLS__KEY"] = str(certificates.server_key)
        tls = certificates.client_context()
    ports = ("--websocket", "127.0.0.1:0", "--device", "", "--http", "127.0.0.1:0")
    log = tmp_path_factory.mktemp("node") / "log"
    with log.open("wb") as stderr:
        command = [sys.executable, "-c", "from notifyd.cli import main; main()", "serve", *ports]
        process = subprocess.Popen(command, stderr=stderr, env=environment)
    try:
        found = _wait_serving(process, log)
        echo_node = EchoNode(int(found["websocket"]), tls, int(found["http"]))
        yield echo_node
        assert process.poll() is None, log.read_text()
        assert echo_node.metric("barrier_hits_total") == 0, log.read_text()
        assert echo_node.all_left(), "connections are still open"
        process.terminate()
        assert process.wait(START_S) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_conformance(node: EchoNode, case: Case) -> None:
    run(case, node.port, "/echo", node.tls)


async def test_echo_is_off_by_default() -> None:
    nowhere = Address("127.0.0.1", 0)
    listen = ListenSettings(websocket=nowhere, device=None, http=None)
    async with open_node(Settings(auth=AuthSettings(anonymous=True), listen=listen)) as node:
        assert node.websocket_address is not None
        async with await trio.open_tcp_stream("127.0.0.1", node.websocket_address.port) as stream:
            await stream.send_all(head())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


def test_the_table_is_whole() -> None:
    assert len(CASES) >= 300
    assert {case.close for case in CASES.values() if case.close} >= {1002, 1007, 1008, 1009}


# --- the opening handshake ------------------------------------------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)


def head(*more: str, line: str = "GET /echo HTTP/1.1", without: str = "") -> bytes:
    kept = [header for header in GOOD if not (without and header.startswith(without))]
    return "\r\n".join([line, *kept, *more, "", ""]).encode("latin-1")


BAD_HEADS = {
    "POST": (head(line="POST /echo HTTP/1.1"), 405),
    "HTTP/1.0": (head(line="GET /echo HTTP/1.0"), 400),
    "absolute target": (head(line="GET http://localhost/echo HTTP/1.1"), 400),
    "no HTTP": (b"HELO there\r\n\r\n", 400),
    "unknown path": (head(line="GET /nowhere HTTP/1.1"), 404),
    "no Host": (head(without="Host"), 400),
    "two Hosts": (head("Host: localhost"), 400),
    "Host with a byte above 0x7f": (head("Host: b\xfccher", without="Host"), 400),
    "Connection with a byte above 0x7f": (head("Connection: Upgrade, \xff", without="Connection"), 400),
    "subprotocol with a byte above 0x7f": (head("Sec-WebSocket-Protocol: \x80"), 400),
    "extension with a byte above 0x7f": (head("Sec-WebSocket-Extensions: \xe9"), 400),
    "Host that is no IDNA": (head("Host: xn--0", without="Host"), 400),
    "no Upgrade": (head(without="Upgrade"), 426),
    "Upgrade to h2c": (head("Upgrade: h2c", without="Upgrade"), 426),
    "no Connection": (head(without="Connection"), 426),
    "Connection: close": (head("Connection: close", without="Connection"), 426),
    "no version": (head(without="Sec-WebSocket-Version"), 426),
    "version 8": (head("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"), 426),
    "no key": (head(without="Sec-WebSocket-Key"), 400),
    "short key": (head("Sec-WebSocket-Key: c2hvcnQ=", without="Sec-WebSocket-Key"), 400),
    "two keys": (head(f"Sec-WebSocket-Key: {KEY}"), 400),
    "only unknown subprotocols": (head("Sec-WebSocket-Protocol: mqtt, wamp"), 400),
    "body announced": (head("Content-Length: 5") + b"hello", 400),
    "chunked body": (head("Transfer-Encoding: chunked"), 400),
    "folded header": (head("X: a", " b"), 400),
    "bare LF": (head().replace(b"\r\n", b"\n"), 400),
    "NUL": (head("X: \0"), 400),
    "101 headers": (head(*(f"X-{number}: a" for number in range(96))), 431),
    "17 KiB": (head("X: " + "a" * 17 * 1024), 431),
    "foreign Origin": (head("Origin: https://evil.example"), 403),
}


@pytest.mark.parametrize(("data", "status"), BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_a_bad_head_gets_its_status_and_json(node: EchoNode, data: bytes, status: int) -> None:
    with Driver(node.port, node.tls) as driver:
        driver.write(data)
        found, headers = driver.read_refusal()
    assert found == status
    if status == 426:
        assert headers["upgrade"] == "websocket"
        assert headers["sec-websocket-version"] == "13"


GOOD_HEADS = {
    "as browsers send it": head("Cookie: a=b", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
    "names in other case": head("UPGRADE: WebSocket", "connection: keep-alive, UPGRADE", without="Upgrade").replace(
        b"Connection: Upgrade\r\n", b""
    ),
    "two Connection headers": head("Connection: keep-alive"),
    "100 headers": head(*(f"X-{number}: a" for number in range(95))),
    "with a query": head(line="GET /echo?a=b HTTP/1.1"),
}


@pytest.mark.parametrize("data", GOOD_HEADS.values(), ids=GOOD_HEADS.keys())
@pytest.mark.parametrize("step_bytes", [1, 7, 100000])
def test_a_good_head_is_read_in_any_cutting(node: EchoNode, data: bytes, step_bytes: int) -> None:
    with Driver(node.port, node.tls) as driver:
        driver.write(*(data[at : at + step_bytes] for at in range(0, len(data), step_bytes)))
        assert driver.read_head()[0] == 101
        driver.write(frame(PING, b"here"))
        assert driver.read_reply() == (PONG, b"here")


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ((), None),
        (("notifyd.v1.json",), "notifyd.v1.json"),
        (("notifyd.v1.msgpack, notifyd.v1.json",), "notifyd.v1.msgpack"),
        (("mqtt", "notifyd.v1.json"), "notifyd.v1.json"),
    ],
)
def test_a_known_subprotocol_is_agreed_on(node: EchoNode, offered: tuple[str, ...], agreed: str | None) -> None:
    with Driver(node.port, node.tls) as driver:
        answer = driver.open("/echo", *(f"Sec-WebSocket-Protocol: {names}" for names in offered))
        assert answer.get("sec-websocket-protocol") == agreed


@pytest.mark.parametrize("turn", range(20))
def test_frames_in_the_segment_of_the_head_are_kept(node: EchoNode, turn: int) -> None:
    first = frame(PING, b"first") + frame(TEXT, b"second") + frame(TEXT, b"third" * 200)
    with Driver(node.port, node.tls) as driver:
        driver.open("/echo", trailing=first[: len(first) - turn])
        driver.write(first[len(first) - turn :])
        assert [driver.read_reply() for _ in range(3)] == [(PONG, b"first"), (TEXT, b"second"), (TEXT, b"third" * 200)]
