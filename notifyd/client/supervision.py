"""Keeping a client connected: connect, live, back off, again; and the states that this goes through.

Source: spec/wire.md, "Reconnecting"; spec/states.md.
"""

from collections import deque
from weakref import WeakSet

import trio

from notifyd.client.connection import ClientConnection, ConnectionLoss, bounded_s
from notifyd.client.errors import ClientClosed, ClientError, ConnectionRefused, ServerUnreachable
from notifyd.client.link import LinkClosed
from notifyd.client.options import ClientOptions
from notifyd.client.session import ClientSession
from notifyd.client.tokens import TokenSource
from protocol.backoff import UNAVAILABLE_AFTER, Backoff
from protocol.connecting import Connecting, ConnectionState, Trigger
from protocol.errors import CloseCode

FINAL_CLOSE_CODES = frozenset(code for code in CloseCode if not code.may_reconnect)


class States:
    """An async iterator over a client's states: the present one first, then every change, in order.

    It ends after the last state of a client that was closed or refused.
    """

    def __init__(self, state: ConnectionState) -> None:
        self._states = deque([state])
        self._has_ended = False
        self._changed = trio.Event()

    def add(self, state: ConnectionState) -> None:
        """Note a change."""
        self._states.append(state)
        self._changed.set()

    def end(self) -> None:
        """Note that there will be no other."""
        self._has_ended = True
        self._changed.set()

    def __aiter__(self) -> "States":
        return self

    async def __anext__(self) -> ConnectionState:
        await trio.lowlevel.checkpoint()
        while not self._states:
            if self._has_ended:
                raise StopAsyncIteration
            self._changed = trio.Event()
            await self._changed.wait()
        return self._states.popleft()


class Keeper:
    """Owns a client's one connection and replaces it when it is lost. `run` is its only task."""

    def __init__(self, options: ClientOptions, session: ClientSession, tokens: TokenSource) -> None:
        self.problem: str | None = None
        self.connection: ClientConnection | None = None
        self._options = options
        self._session = session
        self._tokens = tokens
        self._steps = Connecting()
        self._backoff = Backoff()
        self._failures = 0
        self._renewed = False
        self._final: ClientError | None = None
        self._changed = trio.Event()
        self._watchers: WeakSet[States] = WeakSet()

    @property
    def state(self) -> ConnectionState:
        """Where the client stands now."""
        return self._steps.state

    def states(self) -> States:
        """Watch the states."""
        watcher = States(self.state)
        self._watchers.add(watcher)
        if self._final is not None:
            watcher.end()
        return watcher

    async def run(self) -> None:
        """Keep connected until the server forbids it, or the client gives up or is closed."""
        self._take(Trigger.OPEN)
        while self._final is None:
            loss = await self._connect()
            established = self.state is ConnectionState.CONNECTED
            connection, self.connection = self.connection, None
            self.problem = loss.reason
            if self._final is None:
                self._final = self._judge(loss, established=established)
            if self._final is None:
                await self._back_off(loss, connection, established=established)
        self.stop()

    async def connected(self) -> ClientConnection:
        """Wait for a live connection; raises what makes one impossible."""
        while self._final is None:
            if self.connection is not None and self.connection.loss is None:
                return self.connection
            await self._changed.wait()
        raise self._final

    async def close(self) -> None:
        """End the connection in order; there will be no other. `stop` comes after it."""
        self._final = self._final or self._closed()
        if self.connection is not None:
            self.connection.finish(ConnectionLoss("closed by this client"))
            await self.connection.over.wait()

    def stop(self) -> None:
        """Let everything that waits for this client fail, now."""
        self._final = self._final or self._closed()
        self._session.end(self._final)
        self._take(Trigger.CLOSE)
        for watcher in self._watchers:
            watcher.end()

    async def _connect(self) -> ConnectionLoss:
        """Make one connection and live it."""
        connection = ClientConnection(self._options, self._session, self._accept)
        try:
            token = await self._tokens.get()
        except LinkClosed as failure:
            return ConnectionLoss(failure.reason)
        return await connection.run(token)

    def _accept(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._failures = 0
        self._renewed = False
        self._backoff.reset()
        self._take(Trigger.ACCEPTED)

    def _judge(self, loss: ConnectionLoss, *, established: bool) -> ClientError | None:
        """Tell what a loss means: None to try again, else the error that ends the client."""
        url = self._options.address.url
        if not established:
            self._failures += 1
        if loss.code == CloseCode.UNAUTHORIZED and self._tokens.is_renewable and not self._renewed:
            self._renewed = True
            self._tokens.forget()
        elif loss.code in FINAL_CLOSE_CODES:
            return ConnectionRefused(url, CloseCode(loss.code), loss.reason)
        if self._options.give_up and self._failures >= UNAVAILABLE_AFTER:
            return ServerUnreachable(f"cannot reach {url}: {loss.reason}")
        return None

    async def _back_off(self, loss: ConnectionLoss, lost: ClientConnection | None, *, established: bool) -> None:
        """Wait before the next attempt; a server that said `goaway` chose the moment itself."""
        delay_s = max(self._backoff.next_delay_s(), bounded_s(loss.retry_after_s or 0.0))
        if lost is not None and lost.move_at_s is not None:
            delay_s = max(0.0, lost.move_at_s - trio.current_time())
        failed = Trigger.FAILED_REPEATEDLY if self._failures >= UNAVAILABLE_AFTER else Trigger.FAILED
        self._take(Trigger.LOST if established else failed)
        await trio.sleep(delay_s)
        self._take(Trigger.RETRY)

    def _closed(self) -> ClientClosed:
        return ClientClosed(f"the client of {self._options.address.url} is closed")

    def _take(self, trigger: Trigger) -> None:
        before = self.state
        state = self._steps.on(trigger)
        self._changed.set()
        self._changed = trio.Event()
        if state is not before:
            for watcher in self._watchers:
                watcher.add(state)
