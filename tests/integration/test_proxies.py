"""nginx and HAProxy in front of a node, each with the very example of spec/proxies: only ports and paths are replaced.

Clients come from 127.0.0.2, proxies reach the node from 127.0.0.1, and strangers who come past them from 127.0.0.9.
"""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from notifyd.settings import ProxyProtocol
from tests.certificates import Certificates, certificates
from tests.reliability.node_process import WAIT_S, NodeProcess, started_node, wait_until
from tests.reliability.raw_clients import (
    UPGRADE,
    RawDevice,
    RawSocket,
    RawWebSocket,
    data_frame,
    let_go_of_all,
    masked,
)
from tests.unit.transport.proxy_headers import line, proxied

__all__ = ["certificates"]

pytestmark = pytest.mark.guard(60)

EXAMPLES = Path(__file__).parents[2] / "spec" / "proxies"
CLIENT, INSIDER, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.9"
API_KEY = "a-key-for-tests-only"
CONNECT = {"op": "connect", "id": 1}


@dataclass
class Proxy:
    """A proxy that runs, the node behind it, and what it logged."""

    name: str
    ports: dict[str, int]
    node: NodeProcess
    tls: ssl.SSLContext
    folder: Path

    async def websocket(self, request: bytes = UPGRADE, source: str = CLIENT) -> RawWebSocket:
        opened = await RawWebSocket.open(self.ports["websocket"], tls=self.tls, source=source)
        assert b" 101 " in await opened.upgrade(request)
        assert (await opened.request(CONNECT))["op"] == "connected"
        return opened

    async def device(self, source: str = CLIENT) -> RawDevice:
        opened = await RawDevice.open(self.ports["device"], tls=self.tls, source=source)
        assert (await opened.request(CONNECT))["op"] == "connected"
        return opened

    async def ask(self, listener: str, path: str, source: str = CLIENT, key: str = API_KEY) -> bytes:
        """GET; the whole answer."""
        asking = await RawSocket.open(self.ports[listener], tls=self.tls, source=source)
        head = f"GET {path} HTTP/1.1\r\nHost: notify.example.com\r\nAuthorization: Bearer {key}\r\n"
        await asking.send(f"{head}Connection: close\r\n\r\n".encode())
        return await asking.read_rest()

    async def addresses(self) -> list[str]:
        """The addresses that the node lists its clients with."""
        listed = json.loads(await self.node.get("/v1/connections"))["connections"]
        return [connection["address"] for connection in listed]

    def log(self) -> str:
        """What the proxy logged of its clients."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


def replaced(name: str, replacements: Mapping[str, str]) -> str:
    text = (EXAMPLES / name).read_text()
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def settings_in(name: str, folder: Path) -> Path:
    """Write the node's settings that an example tells in its first comment."""
    lines = re.findall(r"^#   (.*)$|^#$", (EXAMPLES / name).read_text(), re.MULTILINE)
    path = folder / "notifyd.toml"
    path.write_text("\n".join(lines))
    (folder / "api-key.txt").write_text(API_KEY)
    assert tomllib.loads(path.read_text())["listen"]["websocket"] == "127.0.0.1:7500"
    return path


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in held]
    for listening in held:
        listening.close()
    return ports


def nginx_command(folder: Path, ports: dict[str, int], node: NodeProcess, certificates: Certificates) -> list[str]:
    temporary = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration = folder / "nginx.conf"
    configuration.write_text(
        replaced(
            "nginx.conf",
            {
                "listen 443 ": f"listen 127.0.0.1:{ports['websocket']} ",
                "listen 7443 ": f"listen 127.0.0.1:{ports['device']} ",
                "listen 8443 ": f"listen 127.0.0.1:{ports['http']} ",
                "127.0.0.1:7500;": f"127.0.0.1:{node.ports['websocket']};",
                "127.0.0.1:7501;": f"127.0.0.1:{node.ports['device']};",
                "127.0.0.1:7502;": f"127.0.0.1:{node.ports['http']};",
                "allow 10.0.0.0/8": f"allow {INSIDER}",
                "/etc/ssl/notifyd/chain.pem": str(certificates.server),
                "/etc/ssl/notifyd/key.pem": str(certificates.server_key),
                "/run/nginx.pid": str(folder / "nginx.pid"),
                "/var/log/nginx/": f"{folder}/",
                "worker_connections 65536": "worker_connections 100",
                "worker_rlimit_nofile 131072": "worker_rlimit_nofile 1000",
                "http {\n": f"http {{ {temporary}\n",
            },
        )
    )
    return ["nginx", "-c", str(configuration), "-g", "daemon off;", "-e", str(folder / "early.txt")]


def haproxy_command(folder: Path, ports: dict[str, int], node: NodeProcess, certificates: Certificates) -> list[str]:
    both = folder / "chain-and-key.pem"
    both.write_text(certificates.server.read_text() + certificates.server_key.read_text())
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        replaced(
            "haproxy.cfg",
            {
                "bind :443 ": f"bind 127.0.0.1:{ports['websocket']} ",
                "bind :7443 ": f"bind 127.0.0.1:{ports['device']} ",
                "bind :8443 ": f"bind 127.0.0.1:{ports['http']} ",
                "n1 127.0.0.1:7500 ": f"n1 127.0.0.1:{node.ports['websocket']} ",
                "n1 127.0.0.1:7501 ": f"n1 127.0.0.1:{node.ports['device']} ",
                "n1 127.0.0.1:7502\n": f"n1 127.0.0.1:{node.ports['http']}\n",
                "check port 7502 inter 2s": f"check port {node.ports['http']} inter 100ms",
                "src 10.0.0.0/8": f"src {INSIDER}",
                "/etc/ssl/notifyd/chain-and-key.pem": str(both),
                "log /dev/log local0": "log stdout format raw local0",
                "maxconn 60000": "maxconn 100",
                "    user haproxy\n    group haproxy\n": "",
            },
        )
    )
    return ["haproxy", "-db", "-f", str(configuration)]


COMMANDS = {"nginx": (nginx_command, "nginx.conf"), "haproxy": (haproxy_command, "haproxy.cfg")}


@contextmanager
def running(command: list[str], ports: list[int], output: Path) -> Iterator[None]:
    """Run a proxy until it listens, and end it after the block."""
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, f"{command[0]} is not installed: `sh tests/run` does that"
    command = [program, *command[1:]]
    with output.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT) as process:
        try:
            began_s = time.monotonic()
            while not all(map(is_listening, ports)):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() - began_s < WAIT_S, output.read_text()
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def is_listening(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=COMMANDS)
def proxy(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """A proxy with a node behind it, both configured as the example says."""
    make_command, example = COMMANDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with started_node(config=settings_in(example, folder)) as node:
        node.api_key = API_KEY
        ports = dict(zip(("websocket", "device", "http"), free_ports(3), strict=True))
        command = make_command(folder, ports, node, certificates)
        with running(command, list(ports.values()), folder / "output.log"):
            yield Proxy(request.param, ports, node, certificates.client_context(), folder)
        assert node.failures == []


@pytest.fixture(autouse=True)
def _clients_leave(proxy: Proxy) -> Iterator[None]:
    yield
    let_go_of_all()


def host_of(address: str) -> str:
    return address.rpartition(":")[0] or address


async def wait_clients(proxy: Proxy, hosts: list[str]) -> None:
    """Wait until the node's clients are those with these addresses: those of other tests are on their way out."""
    found: list[str] = []
    with trio.move_on_after(10):
        while (found := sorted(map(host_of, await proxy.addresses()))) != sorted(hosts):  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert found == sorted(hosts)


async def test_both_transports_come_through_with_the_clients_address(proxy: Proxy) -> None:
    websocket, device = await proxy.websocket(), await proxy.device()
    await wait_clients(proxy, [CLIENT, CLIENT])
    for client in (websocket, device):
        assert (await client.request({"op": "subscribe", "id": 2, "topic": "a"}))["op"] == "subscribed"
    large = "x" * 60_000
    for number, (publisher, other) in enumerate([(websocket, device), (device, websocket)]):
        await publisher.send(_publish(publisher, [number, large]))
        assert await _received(other) == [number, large]
        assert await _received(publisher) == [number, large]


def _publish(client: RawWebSocket | RawDevice, data: Any) -> bytes:
    message = {"op": "publish", "topic": "a", "data": data}
    return masked(1, json.dumps(message).encode()) if isinstance(client, RawWebSocket) else data_frame(message)


async def _received(client: RawWebSocket | RawDevice) -> Any:
    message = json.loads((await client.frame())[1]) if isinstance(client, RawWebSocket) else await client.message()
    assert message["op"] == "message"
    return message["data"]


async def test_heartbeats_come_through_as_they_are(proxy: Proxy) -> None:
    beat = b"HEAR\0" + bytes(range(8)) + bytes(3)
    echoed = b"HEAR\1" + beat[5:]
    websocket, device = await proxy.websocket(), await proxy.device()
    await websocket.send(masked(2, beat))
    assert await websocket.frame() == (2, echoed)
    await device.send(beat)
    assert await device.read(16) == echoed


LIES = (
    b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 10.9.9.9\r\n"
)


async def test_what_a_client_says_of_its_address_is_not_believed(proxy: Proxy) -> None:
    websocket = await proxy.websocket(UPGRADE.replace(b"\r\n\r\n", b"\r\n" + LIES + b"\r\n"))
    await wait_clients(proxy, [CLIENT])
    websocket.close()
    for header in (line("127.0.0.1", 80), proxied("127.0.0.1", 80)):
        device = await RawDevice.open(proxy.ports["device"], tls=proxy.tls, source=CLIENT)
        await device.send(header)
        assert await device.error_code() == 4000


async def test_a_stranger_past_the_proxy_is_not_believed(proxy: Proxy) -> None:
    ports = proxy.node.ports
    websocket = await RawWebSocket.open(ports["websocket"], source=STRANGER)
    assert b" 101 " in await websocket.upgrade(UPGRADE.replace(b"\r\n\r\n", b"\r\n" + LIES + b"\r\n"))
    assert (await websocket.request(CONNECT))["op"] == "connected"
    device = await RawDevice.open(ports["device"], source=STRANGER)
    assert (await device.request(CONNECT))["op"] == "connected"
    await wait_clients(proxy, [STRANGER, STRANGER])
    for header in (line(CLIENT, 80), proxied(CLIENT, 80)):
        liar = await RawDevice.open(ports["device"], source=STRANGER)
        await liar.send(header)
        assert await liar.error_code() == 4000
        claimant = await RawWebSocket.open(ports["websocket"], source=STRANGER)
        assert b" 400 " in await claimant.upgrade(header + UPGRADE)


async def test_from_the_proxys_address_a_header_is_needed(proxy: Proxy) -> None:
    settings = tomllib.loads((proxy.folder / "notifyd.toml").read_text())["listen"]["proxy_protocol"]
    assert set(settings) <= set(ProxyProtocol.__struct_fields__)
    for listener in settings:
        refused = proxy.node.events("proxy_header_refused")
        unnamed = await RawSocket.open(proxy.node.ports[listener])
        await unnamed.send(UPGRADE if listener == "websocket" else b"HEAR\0" + bytes(11))
        assert await unnamed.read_rest() == b""
        await proxy.node.wait_logged("proxy_header_refused", len(refused) + 1)


async def test_the_api_is_for_the_inside_and_takes_a_key(proxy: Proxy) -> None:
    for path in ("/", "/v1/topics", "/metrics", "/ws/", "/%77s/../v1/topics"):
        assert b" 404 " in (await proxy.ask("websocket", path)).split(b"\r\n")[0], path
    assert b" 403 " in (await proxy.ask("http", "/v1/topics")).split(b"\r\n")[0]
    assert b" 401 " in (await proxy.ask("http", "/v1/topics", INSIDER, key="another")).split(b"\r\n")[0]
    assert b'"topics":' in await proxy.ask("http", "/v1/topics", INSIDER)
    assert b'"ready":true' in await proxy.ask("http", "/ready", INSIDER)


async def test_the_page_finds_the_websocket_listener_where_it_came_from(proxy: Proxy) -> None:
    port = proxy.ports["http"]
    own = f"Host: 127.0.0.1:{port}\r\nOrigin: https://127.0.0.1:{port}\r\n".encode()
    request = UPGRADE.replace(b"Host: 127.0.0.1\r\n", own)
    for source, answer in ((INSIDER, b" 101 "), (CLIENT, b" 403 ")):
        opened = await RawWebSocket.open(port, tls=proxy.tls, source=source)
        assert answer in await opened.upgrade(request)
        opened.close()


async def test_its_log_names_clients_and_no_tokens(proxy: Proxy) -> None:
    refused = await RawWebSocket.open(proxy.ports["websocket"], tls=proxy.tls, source=CLIENT)
    assert b" 401 " in await refused.upgrade(UPGRADE.replace(b"/ws ", b"/ws?token=a.secret.token "))
    refused.close()
    websocket = await proxy.websocket()
    websocket.close()
    await wait_until(lambda: " 101" in proxy.log() and " 401" in proxy.log())
    for wanted in (" 101", " 401", CLIENT):
        assert wanted in proxy.log()
    assert "secret" not in proxy.log()
    assert "DOWN" not in proxy.log(), "its checks of the node's health fail"
