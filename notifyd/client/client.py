"""The Trio client: publish, subscribe and ask, over a connection that keeps itself alive."""

import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from math import inf
from typing import Any

import trio
from msgspec import UNSET

from notifyd.client.address import parse_address
from notifyd.client.connection import UNNUMBERED, ClientConnection, retry_delay_s
from notifyd.client.dialing import DialNode
from notifyd.client.errors import AnswerLost, SubscriptionEnded
from notifyd.client.feed import QUEUE_MESSAGES, Feed
from notifyd.client.options import CONNECT_TIMEOUT_S, DEFAULT_CLIENT, ClientOptions, ignore_beat
from notifyd.client.requests import Disconnected, Reply
from notifyd.client.session import ClientSession
from notifyd.client.supervision import Keeper, States
from notifyd.client.tokens import Token, TokenSource
from protocol.connecting import ConnectionState
from protocol.data import check_data
from protocol.errors import RequestError
from protocol.framing import Encoding
from protocol.liveness import DEFAULT_FLOOR_S, DEFAULT_INTERVAL_S
from protocol.messages import (
    Call,
    ClientInfo,
    Connected,
    History,
    HistoryReply,
    Member,
    Presence,
    PresenceReply,
    Publish,
    Published,
    Refresh,
    Refreshed,
    Request,
    Result,
    Since,
    Unsubscribe,
)
from protocol.position import Position

REPEATABLE_S = 240.0
"""A publish is repeated for so long after it first left: the server remembers its key for 300 s."""


class Client:
    """A client of one server, opened by `open_client`. Every method may be called by any task.

    Methods that ask the server wait for a connection and ask again on the next one when it is lost, until they are
    answered or cancelled: bound them with `trio.fail_after` or `trio.move_on_after`. They raise RequestError when the
    server refuses (one with `retry_after` is waited for instead, and kept as `last_refusal`), and ClientError when no
    waiting would help.
    """

    def __init__(self, options: ClientOptions, session: str | None, token: Token) -> None:
        self.last_refusal: RequestError | None = None
        self._tokens = TokenSource(token)
        self._session = ClientSession(session, self._read_page, self._acknowledge)
        self._keeper = Keeper(options, self._session, self._tokens)

    # --- how it stands -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Where the client stands now."""
        return self._keeper.state

    def states(self) -> States:
        """Return an async iterator over the present state and every later one."""
        return self._keeper.states()

    @property
    def problem(self) -> str | None:
        """Why the last connection ended or the last attempt failed, for people; None when there was none yet."""
        return self._keeper.problem

    @property
    def session(self) -> str | None:
        """The session's name: given to `open_client`, it resumes; None before the first connection."""
        return self._session.name

    @property
    def welcome(self) -> Connected | None:
        """What the server said of the present connection: user, node, heartbeat; None while there is none."""
        connection = self._keeper.connection
        return None if connection is None else connection.welcome

    @property
    def round_trip_s(self) -> float | None:
        """The mean of the present connection's last five heartbeats; None before the first."""
        connection = self._keeper.connection
        return None if connection is None else connection.round_trip_s

    async def wait_connected(self) -> Connected:
        """Wait until the client is connected. Raises ClientError when it cannot be."""
        connection = await self._keeper.connected()
        assert connection.welcome is not None
        return connection.welcome

    # --- messages ----------------------------------------------------------------------------------------------------

    async def publish(
        self, topic: str, data: Any, *, key: str | None = None, echo: bool = True, trace: str | None = None
    ) -> Published:
        """Publish `data`; return its position where the topic keeps history.

        It carries a key (one is made where none is given), so it is accepted once, however often it has to be sent.
        With `echo=False` this client's own subscription does not get it, unless a reconnect replays it. `trace` is the
        W3C traceparent of what the message is a part of. Cancelled, it may or may not have been accepted. Raises
        AnswerLost when the connection was away for so long after it had left that repeating it might double it.
        """
        check_data(data)
        request = Publish(topic=topic, data=data, key=key or secrets.token_urlsafe(16), echo=echo, trace=trace)
        with nullcontext() if echo else self._session.silence(topic) as silence:
            published = await self._ask(request, Published, repeatable_s=REPEATABLE_S)
            if silence is not None:
                silence.append(published)
            return published

    @asynccontextmanager
    async def subscribe(
        self, topic: str, since: Since = "latest", *, queue_messages: int = QUEUE_MESSAGES, joins: bool = False
    ) -> AsyncIterator[Feed]:
        """Subscribe to a topic while the block runs: `async with client.subscribe("a:b") as messages`.

        The block begins when the server has begun the subscription. `since` is "latest", "earliest" or a Position to go
        on after. `queue_messages` bounds what waits for a slow consumer; see Feed. `joins` adds `Joined` and `Left`
        events where the topic's policy has them. A topic that the server subscribed by itself (a token's topics, a
        session resumed from an earlier process) goes on where the server began it, unless `since` says otherwise.

        Raises RequestError: 409 for a topic that this client has subscribed already.
        """
        feed, plan = self._session.enroll(topic, since, queue_messages=queue_messages, joins=joins)
        connection = self._keeper.connection
        if connection is not None:
            connection.carry_out(plan)
        try:
            await feed.ready()
            yield feed
        finally:
            self._leave(feed)

    async def history(self, topic: str, since: Since = "earliest", limit: int = 100) -> HistoryReply:
        """Read up to `limit` (at most 1000) kept messages after `since`, oldest first."""
        return await self._ask(History(id=UNNUMBERED, topic=topic, since=since, limit=limit), HistoryReply)

    async def presence(self, topic: str) -> list[Member]:
        """Tell who is subscribed to a topic."""
        return (await self._ask(Presence(id=UNNUMBERED, topic=topic), PresenceReply)).members

    async def call(self, method: str, data: Any = None) -> Any:
        """Call a backend's method; return what it answered.

        It is sent once: raises AnswerLost when the connection ends before the answer.
        """
        check_data(data)
        return (await self._ask(Call(id=UNNUMBERED, method=method, data=data), Result, repeatable_s=0.0)).data

    async def refresh(self, token: str) -> int | None:
        """Replace the token on the live connection and for the next ones; return when it expires, in Unix seconds."""
        reply = await self._ask(Refresh(id=UNNUMBERED, token=token), Refreshed)
        self._tokens.set(token)
        return None if reply.expires is UNSET else reply.expires

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the client connected while the block runs; `open_client` does this and the rest."""
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keeper.run)
            try:
                yield
                await self._keeper.close()
            except BaseException as error:
                failure = error  # raised below, where no nursery puts it into a group
            self._keeper.stop()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _ask(self, request: Request, expected: type[Reply], *, repeatable_s: float = inf) -> Reply:
        """Ask until there is an answer. `repeatable_s`: how long after it first left the request may leave again."""
        repeat_until_s = inf
        while True:
            connection = await self._connection_until(repeat_until_s)
            left_s = trio.current_time()
            try:
                return await connection.request(request, expected)
            except Disconnected as lost:
                if lost.sent:
                    repeat_until_s = min(repeat_until_s, left_s + repeatable_s)
            except RequestError as refusal:
                delay_s = retry_delay_s(refusal)
                if delay_s is None:
                    raise
                self.last_refusal = refusal
                await trio.sleep(delay_s)

    async def _connection_until(self, deadline_s: float) -> ClientConnection:
        if deadline_s > trio.current_time():
            with trio.move_on_at(deadline_s):
                return await self._keeper.connected()
        raise AnswerLost("the connection ended before the answer; whether the server acted on the request is not known")

    async def _read_page(self, topic: str, since: Position, limit: int) -> HistoryReply:
        return await self.history(topic, since, limit)

    def _acknowledge(self, topic: str, offset: int) -> None:
        connection = self._keeper.connection
        if connection is not None:
            connection.acknowledge(topic, offset)

    def _leave(self, feed: Feed) -> None:
        connection = self._keeper.connection
        if self._session.withdraw(feed, SubscriptionEnded(feed.topic, "left")) and connection is not None:
            connection.tell(Unsubscribe(id=UNNUMBERED, topic=feed.topic))


@asynccontextmanager
async def open_client(
    url: str,
    token: Token = None,
    *,
    session: str | None = None,
    encoding: Encoding | None = None,
    heartbeat_s: float = DEFAULT_INTERVAL_S,
    client_name: str = DEFAULT_CLIENT.name,
    ssl_context: ssl.SSLContext | None = None,
    give_up: bool = False,
    on_beat: Callable[[float], None] = ignore_beat,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    floor_s: float = DEFAULT_FLOOR_S,
    dial: DialNode = trio.open_tcp_stream,
) -> AsyncIterator[Client]:
    """Open a client of the server at `url`: `ws://`, `wss://`, `device://host:port`, `device+tls://host:port`.

    The block begins at once; the connection is made beside it and made again whenever it is lost, with the session and
    the positions, so that no message is lost, doubled or out of order within the topics' history. What cannot be made
    good is told by a Gap. Leaving the block ends the connection in order, within a second; cancelled, at once.

    `token` is a JWT, an async function that fetches one (asked again when the server refuses the one it has), or None.
    `session` resumes an earlier client's session. `encoding` is JSON on WebSocket and MessagePack on a device link
    unless given. `heartbeat_s` is the wish for the time between heartbeats; `on_beat` is called with each round trip in
    seconds, and must not raise. `give_up` ends the client after five failed attempts in a row, where otherwise it goes
    on trying for ever. `connect_timeout_s` bounds one attempt; `floor_s` is the least adaptive timeout. `dial` opens
    the byte stream.

    Raises BadAddress for a URL that is none, ValueError for a heartbeat that is not a positive number; whatever the
    block raises.
    """
    if not 0 < heartbeat_s < inf:
        raise ValueError(f"heartbeat_s is a positive number of seconds, not {heartbeat_s}")
    address = parse_address(url)
    default = Encoding.MSGPACK if address.is_device else Encoding.JSON
    options = ClientOptions(
        address=address,
        encoding=default if encoding is None else encoding,
        heartbeat_s=heartbeat_s,
        floor_s=floor_s,
        connect_timeout_s=connect_timeout_s,
        client=ClientInfo(name=client_name, version=DEFAULT_CLIENT.version),
        ssl_context=ssl_context,
        give_up=give_up,
        on_beat=on_beat,
        dial=dial,
    )
    client = Client(options, session, token)
    async with client.running():
        yield client
