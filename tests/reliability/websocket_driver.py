"""A WebSocket client for judging servers: plain sockets, RFC 6455 and nothing else. It knows nothing of our code.

It says exactly what it is told to say, wrong or right, and checks all that comes back: framing, masking, UTF-8, close
codes, and that a Close frame comes before the connection ends.
"""

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Self

from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

TIMEOUT_S = 5.0
"""How long a server may be silent when it owes an answer."""

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NO_CODE = 1005
"""A Close frame without a code."""

Reply = tuple[int, bytes]
"""Opcode and payload: of a whole message, or of a control frame."""


@dataclass(frozen=True)
class Case:
    """What is written, one system call each, and what must come back.

    With `close` None the replies must come, and then the driver closes with 1000 and wants that code back. Else nothing
    more is written, and the server must end with that code; of the replies, the last ones may then be missing.
    """

    writes: tuple[bytes, ...]
    replies: tuple[Reply, ...] = ()
    close: int | None = None


class Ended(Exception):
    """The server ended the TCP connection."""


class Driver:
    """One connection to the server under judgement."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        connected = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected if tls is None else tls.wrap_socket(connected, server_hostname="localhost")
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, *pieces: bytes) -> None:
        """Write piece by piece. That the server has gone is no error yet: what it said last is still to be read."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes. Raises Ended."""
        while len(self._received) < size:
            self._fill()
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def read_until(self, end: bytes) -> bytes:
        """Read up to and with `end`. Raises Ended."""
        while end not in self._received:
            self._fill()
        return self.read(self._received.index(end) + len(end))

    def _fill(self) -> None:
        try:
            data = self._socket.recv(65536)
        except (ConnectionResetError, ssl.SSLError) as error:
            raise Ended(repr(error)) from None
        if not data:
            raise Ended
        self._received += data

    # --- the handshake ----------------------------------------------------------------------------------------------

    def open(self, path: str, *headers: str, trailing: bytes = b"") -> dict[str, str]:
        """Upgrade, with `trailing` in the same segment; return the answer's headers."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers, "", ""]
        self.write("\r\n".join(lines).encode() + trailing)
        status, answer = self.read_head()
        assert status == 101, f"the upgrade was answered with {status}"
        digest = hashlib.sha1(key.encode() + ACCEPT_GUID).digest()
        assert answer["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert answer["upgrade"].lower() == "websocket"
        assert "upgrade" in answer["connection"].lower()
        assert "sec-websocket-extensions" not in answer
        return answer

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Read an HTTP answer's head: status and headers."""
        status_line, *lines = self.read_until(b"\r\n\r\n").decode("ascii").split("\r\n")[:-2]
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        return int(status), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def read_refusal(self) -> tuple[int, dict[str, str]]:
        """Read an HTTP error with the JSON body that every error has, and the end of the connection."""
        status, headers = self.read_head()
        assert headers["content-type"].startswith("application/json")
        error = json.loads(self.read(int(headers["content-length"])))["error"]
        assert error["code"] == status
        assert isinstance(error["reason"], str)
        assert isinstance(error["message"], str)
        self.expect_end()
        return status, headers

    # --- frames -----------------------------------------------------------------------------------------------------

    def read_frame(self) -> tuple[bool, int, bytes]:
        """Read a frame and check its form: whether it is final, opcode, payload."""
        first, second = self.read(2)
        assert not first & 0x70, "the server set a reserved bit"
        assert not second & 0x80, "the server masked a frame"
        opcode, size = first & 0x0F, second
        assert opcode in {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}
        if opcode >= CLOSE:
            assert first & 0x80, "the server fragmented a control frame"
            assert size <= 125
        elif size == 126:
            (size,) = struct.unpack(">H", self.read(2))
            assert size >= 126
        elif size == 127:
            (size,) = struct.unpack(">Q", self.read(8))
            assert size >= 65536
        return bool(first & 0x80), opcode, self.read(size)

    def read_reply(self) -> Reply:
        """Read a control frame, or a whole message whose fragments stand together."""
        final, opcode, payload = self.read_frame()
        assert opcode != CONTINUATION, "the server continued nothing"
        while not final:
            final, next_opcode, more = self.read_frame()
            assert next_opcode == CONTINUATION
            payload += more
        if opcode == TEXT:
            payload.decode()
        return opcode, payload

    def expect_end(self) -> None:
        """Expect the end of the connection, and nothing before it."""
        try:
            extra = self.read(1)
        except Ended:
            return
        raise AssertionError(f"after its last word the server said {extra!r}")


def run(case: Case, port: int, path: str, tls: ssl.SSLContext | None = None) -> None:
    """Run a case. Raises AssertionError, or TimeoutError when the server owes an answer."""
    with Driver(port, tls) as driver:
        driver.open(path)
        driver.write(*case.writes)
        if case.close is None:
            for expected in case.replies:
                _equal(driver.read_reply(), expected)
            driver.write(frame(CLOSE, struct.pack(">H", 1000)))
        _expect_close(driver, () if case.close is None else case.replies, case.close or 1000)


def _expect_close(driver: Driver, replies: tuple[Reply, ...], code: int) -> None:
    for expected in replies:
        opcode, payload = driver.read_reply()
        if opcode == CLOSE:
            break
        _equal((opcode, payload), expected)
    else:
        opcode, payload = driver.read_reply()
    assert opcode == CLOSE, f"instead of Close, {(opcode, payload[:40])}"
    assert len(payload) != 1
    payload[2:].decode()
    found = struct.unpack(">H", payload[:2])[0] if payload else NO_CODE
    assert found == code, f"closed with {found} {payload[2:]!r} instead of {code}"
    driver.expect_end()


def _equal(found: Reply, expected: Reply) -> None:
    assert found == expected, f"replied {found[0], found[1][:40]} instead of {expected[0], expected[1][:40]}"
