"""A Redis in this process: the product's real connection speaks RESP3 with it over a simulated network.

It knows the commands that the product uses (`COMMANDS`, and those of a connection here), runs its real Lua scripts, and
can be killed, stalled and failed over. tests/simulation/test_against_redis.py holds it to a real redis-server.

    redis = SimRedis(now_us=..., random=Random(7))
    network.listen("redis", redis.accept)
    await nursery.start(redis.run)
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import hiredis
import trio

from tests.simulation import commands, ordered_commands, scripting
from tests.simulation.engine import Engine, Identities
from tests.simulation.keyspace import Keyspace
from tests.simulation.network import RECEIVE_BYTES, Gone
from tests.simulation.resp import Push, Refusal, Reply, encode_reply, integer

KNOWN = (commands, ordered_commands, scripting)
"""What registers commands when it is imported."""

NO_ID = "0" * 40


class Peer(Protocol):
    """A connection as the server sees it: what `tests.simulation.network.End` offers."""

    def send_now(self, data: bytes) -> int: ...

    def close(self) -> None: ...


class Session:
    """One connection's state at the server."""

    def __init__(self, number: int, end: Peer, engine: Engine) -> None:
        self.number = number
        self.engine = engine
        self.end = end
        self.channels: dict[bytes, None] = {}
        self.over = False

    @property
    def is_subscriber(self) -> bool:
        return bool(self.channels)

    def send(self, reply: Reply) -> None:
        """Write an answer or a push; one that is cut meanwhile hears nothing."""
        try:
            self.end.send_now(encode_reply(reply))
        except Gone:
            self.over = True


class SimRedis:
    """One server. `witness` is told of everything that is published."""

    def __init__(self, *, now_us: Callable[[], int], random: Random) -> None:
        self.random = random
        self._now_us = now_us
        self.engine = self._fresh_engine("")
        self.sessions: dict[int, Session] = {}
        self._stalled: trio.Event | None = None
        self._replica: Keyspace | None = None
        self.witness: Callable[[Engine, bytes, bytes], None] = lambda *_: None
        self._last_number = 0
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve connections, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def accept(self, end: Peer) -> None:
        """Take a new connection."""
        assert self._nursery is not None
        self._nursery.start_soon(self._serve, end)

    # --- connections --------------------------------------------------------------------------------------------------

    async def _serve(self, end: "Peer") -> None:
        self._last_number += 1
        session = self.sessions[self._last_number] = Session(self._last_number, end, self.engine)
        reader = hiredis.Reader()
        try:
            while not session.over and (data := await end.incoming.take(RECEIVE_BYTES)):  # type: ignore[attr-defined]
                reader.feed(data)
                while (request := reader.gets()) is not False and not session.over:
                    await self._answer(session, request)
        except Gone:
            pass
        finally:
            del self.sessions[session.number]
            end.close()

    async def _answer(self, session: Session, request: list[bytes]) -> None:
        while self._stalled is not None:
            await self._stalled.wait()
        name = request[0].lower()
        if name == b"wait":
            await self._wait(session, request[1:])
            return
        self.handle(session, request)

    def handle(self, session: Session, request: list[bytes]) -> None:
        """Execute one request of a connection and write what there is to answer."""
        name = request[0].lower()
        if name in SUBSCRIBING:
            self._subscribing(session, name, request[1:])
        elif name == b"hello":
            session.send(self._hello(session, request[1:]))
        else:
            session.send(session.engine.execute(request))

    async def _wait(self, session: Session, arguments: Sequence[bytes]) -> None:
        if len(arguments) != 2:
            session.send(Refusal("ERR wrong number of arguments for 'wait' command"))
            return
        wanted, timeout_ms = integer(arguments[0]), integer(arguments[1])
        if session.engine.replicas < wanted:
            await trio.sleep(timeout_ms / 1000 if timeout_ms else 3600)
        session.send(session.engine.replicas)

    def _hello(self, session: Session, arguments: list[bytes]) -> Reply:
        if arguments[:1] != [b"3"] or [option.upper() for option in arguments[1::2]] not in ([], [b"SETNAME"]):
            return Refusal("ERR the simulated Redis is greeted with HELLO 3 SETNAME name")
        return {
            b"server": b"redis",
            b"version": session.engine.identities.version.encode(),
            b"proto": 3,
            b"id": session.number,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def _subscribing(self, session: Session, name: bytes, arguments: list[bytes]) -> None:
        own = session.channels
        if name == b"unsubscribe":
            for channel in arguments or list(own) or [None]:
                own.pop(channel, None)  # type: ignore[arg-type]
                session.send(Push([name, channel, len(own)]))
        elif not arguments:
            session.send(Refusal("ERR wrong number of arguments for 'subscribe' command"))
        else:
            for channel in arguments:
                own[channel] = None
                session.send(Push([name, channel, len(own)]))

    def publish(self, engine: Engine, channel: bytes, payload: bytes) -> int:
        """Hand a message to every subscriber of its channel at the same server."""
        self.witness(engine, channel, payload)
        sessions = [session for session in self.sessions.values() if session.engine is engine]
        heard = [session for session in sessions if channel in session.channels]
        for session in heard:
            session.send(Push([b"message", channel, payload]))
        return len(heard)

    # --- faults -------------------------------------------------------------------------------------------------------

    def _fresh_identities(self, previous: str) -> Identities:
        replication_id, run_id = (f"{self.random.getrandbits(160):040x}" for _ in range(2))
        return Identities(replication_id, previous or NO_ID, run_id)

    def disconnect(self, *, subscribers: bool | None = None) -> int:
        """End connections, as CLIENT KILL does: of subscribers, of others, or (None) all; return how many."""
        ended = [s for s in self.sessions.values() if subscribers in (None, s.is_subscriber)]
        for session in ended:
            session.over = True
            session.end.close()
        return len(ended)

    def stall(self) -> None:
        """Stop running (SIGSTOP): connections stay, nothing is answered."""
        if self._stalled is None:
            self._stalled = trio.Event()

    def go_on(self) -> None:
        """Run again, with all that arrived meanwhile."""
        stalled, self._stalled = self._stalled, None
        if stalled is not None:
            stalled.set()

    def restart(self) -> None:
        """Come back with what is on the disk: all, or what the replica has (`lag`), where not every write waits."""
        keeps_all, kept = self.engine.keeps_all, self.engine.data
        if not keeps_all and self._replica is not None:
            kept = self._replica
        self.engine = self._fresh_engine("")
        self.engine.adopt(kept)
        self.engine.keeps_all, self._replica = keeps_all, None

    def lag(self) -> bool:
        """Let the replica, and a disk that not every write waits for, hear nothing more; False where they did not."""
        if self._replica is not None:
            return False
        self._replica = self.engine.data.copy()
        return True

    def catch_up(self) -> None:
        """Let the replica have everything again."""
        self._replica = None

    def fail_over(self) -> None:
        """Let the replica take over, with what it had. Connections that are not cut stay with the old server."""
        new = self._fresh_engine(self.engine.identities.replication_id)
        new.adopt(self._replica or self.engine.data.copy())
        new.keeps_all = self.engine.keeps_all
        self.engine, self._replica = new, None

    def _fresh_engine(self, previous: str) -> Engine:
        return Engine(self._now_us, exchange=self, identities=self._fresh_identities(previous))


SUBSCRIBING = (b"subscribe", b"unsubscribe")
