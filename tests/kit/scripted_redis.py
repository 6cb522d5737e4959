"""A Redis in memory that does what a test says: every reply can be changed, held back, torn apart or left out.

    server = ScriptedRedis()
    async with server.running():                    # or: nursery.start_soon(server.serve)
        link = Link("redis", server.dial, greeting(), ...)
        server.reply("GET", b"$1\r\nx\r\n")         # from now on, as it stands on the wire
        server.reply("SET", lambda command: ok())   # or made of the command: bytes, or None for no reply at all
        server.hold()                               # commands are read and kept ...
        server.release(1)                           # ... and answered one by one; None: all
        server.connections[-1].send(push(b"message", b"a", b"x"))
        server.connections[-1].end()                # end of stream; `reset()` breaks it
        server.stall()                              # reads nothing any more

Without a script it greets like Redis 7.0, echoes PING, subscribes, keeps strings (GET, SET, INCR) and says OK to the
rest. `commands` are all commands that came, as lists of bytes. Streams are Trio's memory streams; no clock is used.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import hiredis
import trio
import trio.testing

Reply = bytes | None
MemoryEnd = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
Script = bytes | Callable[[list[bytes]], Reply] | None

MASTER_ID = "a" * 40
NO_ID = "0" * 40


# --- RESP3, as a server writes it -------------------------------------------------------------------------------------


def ok() -> bytes:
    return b"+OK\r\n"


def bulk(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(data), data)


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def error(text: str) -> bytes:
    return b"-%b\r\n" % text.encode()


def null() -> bytes:
    return b"_\r\n"


def array(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def push(*parts: bytes | int | None) -> bytes:
    told = [integer(part) if isinstance(part, int) else null() if part is None else bulk(part) for part in parts]
    return b">%d\r\n" % len(parts) + b"".join(told)


def information(
    *,
    version: str = "7.0.15",
    role: str = "master",
    replication_id: str = MASTER_ID,
    previous: str = NO_ID,
    loading: int = 0,
    **more: str,
) -> bytes:
    """The reply to INFO."""
    lines = {"redis_version": version, "run_id": "b" * 40, "loading": loading, "role": role}
    lines |= {"master_replid": replication_id, "master_replid2": previous, **more}
    return bulk("# Server\r\n" + "".join(f"{name}:{value}\r\n" for name, value in lines.items()))


# --- the server -------------------------------------------------------------------------------------------------------


class ScriptedConnection:
    """One client's connection, seen from the server."""

    def __init__(self, stream: MemoryEnd, client: MemoryEnd) -> None:
        self.stream = stream
        self.channels: set[bytes] = set()
        self.held: list[bytes] = []
        self._client = client

    def send(self, data: bytes) -> None:
        """Send bytes now; lost where the client has closed."""
        if data:
            with contextlib.suppress(trio.ClosedResourceError):
                self._client.receive_stream.put_data(data)

    def end(self) -> None:
        """End the stream behind what was sent."""
        self._client.receive_stream.put_eof()

    def reset(self) -> None:
        """Break both directions: what is under way is lost."""
        self._client.receive_stream.close()
        self._client.send_stream.close()


class ScriptedRedis:
    """Serves any number of connections, one after the other or side by side."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.connections: list[ScriptedConnection] = []
        self.info = information()
        self.strings: dict[bytes, bytes] = {}
        self.refusal: Exception | None = None
        self._scripts: dict[bytes, Script] = {}
        self._is_holding = False
        self._flowing = trio.Event()
        self._flowing.set()
        self._dialled, self._accepted = trio.open_memory_channel[ScriptedConnection](100)

    # --- the script ---------------------------------------------------------------------------------------------------

    def reply(self, name: str, script: Script) -> None:
        """Answer this command so from now on; None: not at all."""
        self._scripts[name.upper().encode()] = script

    def forget(self, name: str) -> None:
        """Answer it as in the beginning."""
        self._scripts.pop(name.upper().encode(), None)

    def hold(self) -> None:
        """Keep all replies that follow."""
        self._is_holding = True

    def release(self, count: int | None = None) -> None:
        """Send the oldest held replies; None: all, and hold none any more."""
        if count is None:
            self._is_holding = False
        for connection in self.connections:
            taken, connection.held = connection.held[:count], connection.held[len(connection.held[:count]) :]
            if taken:
                connection.send(b"".join(taken))

    def stall(self) -> None:
        """Read nothing any more, as a stopped process does."""
        self._flowing = trio.Event()

    def resume(self) -> None:
        """Read on."""
        self._flowing.set()

    def publish(self, channel: bytes, data: bytes) -> int:
        """Push a message to every connection that subscribed; to how many."""
        receivers = [connection for connection in self.connections if channel in connection.channels]
        for connection in receivers:
            connection.send(push(b"message", channel, data))
        return len(receivers)

    def called(self, name: str) -> list[list[bytes]]:
        """The commands of this name that came, in order."""
        return [command for command in self.commands if command[0].upper() == name.upper().encode()]

    # --- working ------------------------------------------------------------------------------------------------------

    async def dial(self) -> trio.abc.Stream:
        """Connect: a link's `Dial`. Raises `refusal` where that is set."""
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        ours, theirs = trio.testing.memory_stream_pair()
        connection = ScriptedConnection(ours, theirs)
        self.connections.append(connection)
        self._dialled.send_nowait(connection)
        return theirs

    async def serve(self) -> None:
        """Serve all connections until cancelled."""
        async with trio.open_nursery() as nursery:
            async for connection in self._accepted:
                nursery.start_soon(self._serve, connection)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve)
            yield
            nursery.cancel_scope.cancel()

    async def _serve(self, connection: ScriptedConnection) -> None:
        reader = hiredis.Reader()
        try:
            while data := await connection.stream.receive_some():
                await self._flowing.wait()
                reader.feed(bytes(data))
                while isinstance(command := reader.gets(), list):
                    self._take(connection, command)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            connection.channels.clear()
            connection.end()

    def _take(self, connection: ScriptedConnection, command: list[bytes]) -> None:
        self.commands.append(command)
        answer = self._answer(connection, command)
        if answer is None:
            return
        if self._is_holding:
            connection.held.append(answer)
        else:
            connection.send(answer)

    def _answer(self, connection: ScriptedConnection, command: list[bytes]) -> Reply:
        name = command[0].upper()
        if name in self._scripts:
            script = self._scripts[name]
            return script(command) if callable(script) else script
        return self._usual(connection, name, command[1:])

    def _usual(self, connection: ScriptedConnection, name: bytes, arguments: Sequence[bytes]) -> Reply:
        match name:
            case b"HELLO":
                return b"%1\r\n" + bulk("proto") + integer(3)
            case b"INFO":
                return self.info
            case b"PING":
                return bulk(arguments[0]) if arguments else b"+PONG\r\n"
            case b"SUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"SUNSUBSCRIBE":
                return b"".join(self._subscribe(connection, name, channel) for channel in arguments)
            case b"PUBLISH" | b"SPUBLISH":
                return integer(self.publish(arguments[0], arguments[1]))
            case b"GET":
                value = self.strings.get(arguments[0])
                return null() if value is None else bulk(value)
            case b"SET":
                self.strings[arguments[0]] = arguments[1]
            case b"INCR":
                value = b"%d" % (int(self.strings.get(arguments[0], b"0")) + 1)
                self.strings[arguments[0]] = value
                return integer(int(value))
        return ok()

    def _subscribe(self, connection: ScriptedConnection, name: bytes, channel: bytes) -> bytes:
        if b"UNSUB" in name:
            connection.channels.discard(channel)
        else:
            connection.channels.add(channel)
        return push(name.lower(), channel, len(connection.channels))
