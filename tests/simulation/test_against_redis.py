"""The simulated Redis answers as a real one does: the same commands, one by one, to both."""

import re
import socket
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import hiredis
import pytest
from hypothesis import HealthCheck, example, given, settings

from notifyd.broker.redis.scripts import FOLDER
from tests.kit.redis_servers import RedisServer, standalone
from tests.simulation.command_sequences import SCRIPTS, Request, requests
from tests.simulation.engine import COMMANDS
from tests.simulation.sim_redis import Session, SimRedis

NUMBERS_OF_NOW = re.compile(rb"\b1[6-9]\d{11}\b")
"""Times in milliseconds: those of two servers differ a little."""


class Real:
    """A connection to a real server."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._reader = hiredis.Reader()

    def ask(self, request: Request) -> list[Any]:
        """Return everything that comes up to the end of this request's answer."""
        self._socket.sendall(hiredis.pack_command(tuple(request)) + hiredis.pack_command((b"PING", b"end of it")))
        got: list[Any] = []
        while not got or got[-1] != b"end of it":
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(65536))
            else:
                got.append(reply)
        return got[:-1]

    def close(self) -> None:
        self._socket.close()


class Simulated:
    """A connection to a simulated one, without a network."""

    def __init__(self) -> None:
        self.redis = SimRedis(now_us=lambda: time.time_ns() // 1000, random=Random(0))
        self.redis.engine.keeps_all = False
        self._reader = hiredis.Reader()
        self._session = Session(1, self, self.redis.engine)
        self.redis.sessions[1] = self._session

    def send_now(self, data: bytes) -> int:
        self._reader.feed(data)
        return len(data)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def ask(self, request: Request) -> list[Any]:
        self.redis.handle(self._session, request)
        got = []
        while (reply := self._reader.gets()) is not False:
            got.append(reply)
        return got


def comparable(request: Request, reply: Any) -> Any:
    """Return an answer without what may differ: time that goes on, the order of sets, the wording behind an error."""
    name = request[0].upper()
    if isinstance(reply, hiredis.ReplyError):
        return _error(name, str(reply))
    if name == b"PTTL" and isinstance(reply, int) and reply > 0:
        return round(reply / 10_000)
    if name in (b"SCAN", b"SMEMBERS", b"HVALS"):
        return _without_order(reply)
    return _normal(reply)


def _error(name: bytes, text: str) -> str:
    if name in (b"EVAL", b"EVALSHA"):
        text = re.sub(r" script: [0-9a-f]{40}.*", "", text)
        return re.sub(r"user_script:\d+: ", "", text)
    if text.startswith(("ERR unknown ", "ERR Unsupported ")):
        return text[:20]
    return text


def _without_order(reply: Any) -> Any:
    return sorted(map(repr, map(_without_order, reply))) if isinstance(reply, list | set) else reply


def _normal(reply: Any) -> Any:
    if isinstance(reply, list):
        return [type(reply).__name__, *map(_normal, reply)]
    if isinstance(reply, dict):
        return sorted((_normal(key), _normal(value)) for key, value in reply.items())
    if isinstance(reply, bytes):
        return NUMBERS_OF_NOW.sub(b"NOW", reply)
    if isinstance(reply, hiredis.ReplyError):
        return str(reply)
    return reply


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with standalone(appendonly="no") as running:
        yield running


@given(requests)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@example([[b"EVAL", script, b"1", key, b"v"] for script in SCRIPTS for key in (b"t1", b"h1", b"z1")])
def test_every_command_is_answered_as_redis_does(server: RedisServer, sequence: list[Request]) -> None:
    real, simulated = Real(server), Simulated()
    try:
        for preparation in ([b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], [b"HELLO", b"3"]):
            real.ask(preparation)
        for request in sequence:
            answers, own = ([comparable(request, reply) for reply in one.ask(request)] for one in (real, simulated))
            if request == [b"UNSUBSCRIBE"]:
                answers, own = (
                    sorted(told[2] for told in answers if told[2]),
                    sorted(told[2] for told in own if told[2]),
                )
            assert own == answers, request
    finally:
        real.close()


def test_every_command_that_the_scripts_use_is_known() -> None:
    used = {
        name.lower().encode()
        for file in FOLDER.glob("*.lua")
        for name in re.findall(r"redis\.p?call\('(\w+)'", file.read_text(encoding="utf-8"))
    }
    assert len(used) > 10
    assert used <= COMMANDS.keys()
