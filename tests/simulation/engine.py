"""The part of a simulated Redis that executes commands one by one, without connections or waiting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from tests.simulation.keyspace import Keyspace
from tests.simulation.resp import Refusal, Reply


class Exchange(Protocol):
    """Who hands published messages to subscribers."""

    def publish(self, engine: "Engine", channel: bytes, payload: bytes) -> int:
        """Return how many got it."""


@dataclass
class Identities:
    """What `INFO` tells about a server's past."""

    replication_id: str
    previous_replication_id: str
    run_id: str
    version: str = "7.0.15"


@dataclass
class Engine:
    """Data, clock (`now_us`: Unix time in microseconds) and identity of one server.

    It has an append-only file; `keeps_all` says that this is on the disk before anything is answered.
    """

    now_us: Callable[[], int]
    exchange: Exchange
    identities: Identities
    data: Keyspace = field(init=False)
    replicas: int = 0
    scripts: dict[bytes, bytes] = field(default_factory=dict)
    in_script: bool = False
    keeps_all: bool = True
    started_us: int = 0
    time_us: int = 0

    def __post_init__(self) -> None:
        self.started_us = self.now_us()
        self.data = Keyspace(self.now_ms)

    def now_ms(self) -> int:
        """Return the time that the present command goes by."""
        return self.time_us // 1000

    def adopt(self, data: Keyspace) -> None:
        """Go on with another server's data."""
        data.now_ms = self.now_ms
        self.data = data

    def execute(self, request: Sequence[bytes]) -> Reply:
        """Execute a command and return its answer, a Refusal too."""
        if not self.in_script:  # a script sees one time, and no two commands see the same microsecond
            self.time_us = max(self.now_us(), self.time_us + 1)
        try:
            command = COMMANDS.get(request[0].lower())
            if command is None:
                raise Refusal(_unknown(request))
            run, least, most = command
            arguments = list(request[1:])
            if not least <= len(arguments) <= most:
                raise Refusal(f"ERR wrong number of arguments for '{request[0].decode().lower()}' command")
            return run(self, arguments)
        except Refusal as refusal:
            return refusal


Command: TypeAlias = Callable[[Engine, list[bytes]], Reply]

COMMANDS: dict[bytes, tuple[Command, int, int]] = {}
"""Every command by its name, with how many arguments it takes at least and at most."""


def command(name: str, least: int, most: int | None = None) -> Callable[[Command], Command]:
    """Register a command with `least` to `most` arguments (as many as `least` when not given, -1: any number)."""

    def register(run: Command) -> Command:
        bound = least if most is None else 10**9 if most == -1 else most
        COMMANDS[name.encode()] = (run, least, bound)
        return run

    return register


def _unknown(request: Sequence[bytes]) -> str:
    arguments = " ".join(f"'{argument.decode(errors='replace')}'" for argument in request[1:])
    return f"ERR unknown command '{request[0].decode(errors='replace')}', with args beginning with: {arguments} "
