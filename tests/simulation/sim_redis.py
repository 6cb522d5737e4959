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
from tests.simulation.resp import OK, Push, Refusal, Reply, Simple, encode_reply, integer

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
        self.version = 2
        self.name = b""
        self.authenticated = False
        self.channels: dict[bytes, None] = {}
        self.shard_channels: dict[bytes, None] = {}
        self.over = False

    @property
    def is_subscriber(self) -> bool:
        return bool(self.channels or self.shard_channels)

    def send(self, reply: Reply) -> None:
        """Write an answer or a push; one that is cut meanwhile hears nothing."""
        try:
            self.end.send_now(encode_reply(reply, self.version))
        except Gone:
            self.over = True


class SimRedis:
    """One server. `witness` is told of everything that is published."""

    def __init__(self, *, now_us: Callable[[], int], random: Random, password: str | None = None) -> None:
        self.random = random
        self._now_us = now_us
        self.engine = self._fresh_engine("")
        self.password = password
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
        else:
            session.send(self._reply(session, name, request))

    def _reply(self, session: Session, name: bytes, request: list[bytes]) -> Reply:
        try:
            if name in (b"hello", b"auth", b"select", b"client", b"quit", b"reset", b"pubsub"):
                return getattr(self, f"_{name.decode()}")(session, request[1:])
            if self.password is not None and not session.authenticated:
                return Refusal("NOAUTH Authentication required.")
        except Refusal as refusal:
            return refusal
        return session.engine.execute(request)

    async def _wait(self, session: Session, arguments: Sequence[bytes]) -> None:
        if len(arguments) != 2:
            session.send(Refusal("ERR wrong number of arguments for 'wait' command"))
            return
        wanted, timeout_ms = integer(arguments[0]), integer(arguments[1])
        if session.engine.replicas < wanted:
            await trio.sleep(timeout_ms / 1000 if timeout_ms else 3600)
        session.send(session.engine.replicas)

    def _hello(self, session: Session, arguments: list[bytes]) -> Reply:
        rest = list(arguments)
        version = session.version
        if rest:
            try:
                version = integer(rest.pop(0))
            except Refusal:
                raise Refusal("ERR Protocol version is not an integer or out of range") from None
            if version not in (2, 3):
                raise Refusal("NOPROTO unsupported protocol version")
        name = None
        while rest:
            option = rest.pop(0).upper()
            if option == b"AUTH" and len(rest) >= 2:
                self._authenticate(session, rest.pop(0), rest.pop(0))
            elif option == b"SETNAME" and rest:
                name = rest.pop(0)
            else:
                raise Refusal(f"ERR Syntax error in HELLO option '{option.decode().lower()}'")
        if self.password is not None and not session.authenticated:
            raise Refusal("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO")
        session.version, session.name = version, session.name if name is None else name
        own = session.engine.identities
        return {
            b"server": b"redis",
            b"version": own.version.encode(),
            b"proto": version,
            b"id": session.number,
            b"mode": b"standalone",
            b"role": own.role.encode(),
            b"modules": [],
        }

    def _authenticate(self, session: Session, user: bytes, password: bytes) -> None:
        if self.password is not None and (user, password) != (b"default", self.password.encode()):
            raise Refusal("WRONGPASS invalid username-password pair or user is disabled.")
        session.authenticated = True

    def _auth(self, session: Session, arguments: list[bytes]) -> Reply:
        if len(arguments) not in (1, 2):
            raise Refusal("ERR wrong number of arguments for 'auth' command")
        self._authenticate(session, arguments[0] if len(arguments) == 2 else b"default", arguments[-1])
        return OK

    def _select(self, _session: Session, arguments: list[bytes]) -> Reply:
        if len(arguments) != 1:
            raise Refusal("ERR wrong number of arguments for 'select' command")
        if not 0 <= integer(arguments[0]) < 16:
            raise Refusal("ERR DB index is out of range")
        return OK

    def _client(self, session: Session, arguments: list[bytes]) -> Reply:
        what = arguments[0].upper()
        if what == b"SETNAME" and len(arguments) == 2:
            session.name = arguments[1]
            return OK
        if (what in (b"SETNAME", b"GETNAME", b"ID") and len(arguments) != 1) or what == b"SETNAME":
            raise Refusal(f"ERR wrong number of arguments for 'client|{what.decode().lower()}' command")
        if what == b"GETNAME":
            return session.name or None
        if what == b"ID":
            return session.number
        raise Refusal(f"ERR unknown subcommand '{arguments[0].decode(errors='replace')}'. Try CLIENT HELP.")

    def _quit(self, session: Session, _arguments: list[bytes]) -> Reply:
        session.over = True
        return OK

    def _reset(self, session: Session, _arguments: list[bytes]) -> Reply:
        self._subscribing(session, b"unsubscribe", [])
        session.version, session.authenticated = 2, False
        return Simple(b"RESET")

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def _subscribing(self, session: Session, name: bytes, arguments: list[bytes]) -> None:
        if self.password is not None and not session.authenticated:
            session.send(Refusal("NOAUTH Authentication required."))
            return
        own = session.shard_channels if name.startswith((b"ssub", b"sunsub")) else session.channels
        if name.endswith(b"unsubscribe"):
            for channel in arguments or list(own) or [None]:
                own.pop(channel, None)  # type: ignore[arg-type]
                session.send(Push([name, channel, len(own)]))
        elif not arguments:
            session.send(Refusal(f"ERR wrong number of arguments for '{name.decode()}' command"))
        else:
            for channel in arguments:
                own[channel] = None
                session.send(Push([name, channel, len(own)]))

    def publish(self, engine: Engine, channel: bytes, payload: bytes, *, sharded: bool) -> int:
        """Hand a message to every subscriber of its channel at the same server."""
        self.witness(engine, channel, payload)
        push = Push([b"smessage" if sharded else b"message", channel, payload])
        sessions = [session for session in self.sessions.values() if session.engine is engine]
        heard = [one for one in sessions if channel in (one.shard_channels if sharded else one.channels)]
        for session in heard:
            session.send(push)
        return len(heard)

    def _pubsub(self, _session: Session, arguments: list[bytes]) -> Reply:
        what = arguments[0].upper()
        count = {b"NUMSUB": "channels", b"SHARDNUMSUB": "shard_channels"}.get(what)
        if count is None:
            raise Refusal(f"ERR unknown subcommand '{arguments[0].decode(errors='replace')}'. Try PUBSUB HELP.")
        reply: list[Reply] = []
        for channel in arguments[1:]:
            reply += [channel, sum(channel in getattr(session, count) for session in self.sessions.values())]
        return reply

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


SUBSCRIBING = (b"subscribe", b"unsubscribe", b"ssubscribe", b"sunsubscribe")
