"""The WebSocket listener: the request head is read and judged here, before trio-websocket sees a byte of it.

Source: RFC 6455 section 4.2; spec/wire.md, "Transports" and "Credentials".
"""

import ssl
from collections.abc import Awaitable, Callable, Collection
from math import ceil, inf, isfinite

from notifyd.auth.permissions import may_subscribe
from notifyd.connection.connecting import UNAUTHORIZED, authenticate
from notifyd.connection.connection import Connection
from notifyd.connection.context import Context
from notifyd.connection.door import Crowded
from notifyd.connection.life import serve_client
from notifyd.connection.limits import CONNECT_BYTES
from notifyd.connection.transport import Opened
from notifyd.errors import StreamBroken
from notifyd.listeners.http.guard import host_name
from notifyd.listeners.introduction import introduce
from notifyd.model import Identity
from notifyd.policy.forwarding import client_of, ip_of, is_local
from notifyd.policy.origin import OriginPolicy
from notifyd.settings import Address
from notifyd.transport.request_head import HeadError, HeadReader, RequestHead, response
from notifyd.transport.stream import ByteStream, SocketStream
from notifyd.transport.tls import TlsStream
from notifyd.transport.websocket import SUBPROTOCOLS, WebSocketTransport, echo_frame, open_websocket, send_all
from protocol.errors import RequestError
from protocol.messages import NO_REQUEST_ID, Connect
from protocol.topics import check_topic

PATH = "/ws"
ECHO_PATH = "/echo"
HEAD_RECEIVE_BYTES = 4096

WEBSOCKET_REFUSAL = response(503, "unavailable", "the connection limit is reached", (("Retry-After", "5"),))
"""What a client over the connection limit gets before its connection is closed."""


class WebSocketServer:
    """Serves accepted streams as WebSockets. `own_ports` are the node's own HTTP ports, whose pages may connect."""

    def __init__(self, context: Context, own_ports: Collection[int], tls: ssl.SSLContext | None) -> None:
        self._context = context
        self._own_ports = own_ports
        self._tls = tls

    def serve(self, socket_stream: SocketStream) -> Awaitable[None]:
        """Serve one client until it is gone."""
        stream = socket_stream if self._tls is None else TlsStream(socket_stream, self._tls)
        return serve_client(stream, self._context, self._open)

    async def _open(self, connection: Connection) -> Opened | None:
        """Perform the handshake; a refused client has got its HTTP answer, and None is returned."""
        stream, listen = connection.stream, self._context.settings.listen
        await introduce(stream, listen.proxy_protocol.websocket, self._context.events)
        try:
            head = await _read_head(stream)
            stream.peer = client_of(stream.peer, head.headers.get("x-forwarded-for", ()), listen.trusted_proxies)
            return await self._upgrade(connection, head)
        except HeadError as refusal:
            connection.refused(refusal.reason)
            await send_all(stream, refusal.response())
            return None

    async def _upgrade(self, connection: Connection, head: RequestHead) -> Opened:
        is_echo = head.path == ECHO_PATH and self._context.settings.debug.echo
        if head.path != PATH and not is_echo:
            raise HeadError(404, "not_found", f"nothing is served at this path; WebSocket clients connect to {PATH}")
        self._check_origin(head)
        subprotocol = _choose_subprotocol(head)
        connection.is_local = self._is_local(connection.stream.peer, head)
        connection.needs_token = self._is_merely_own_page(head)
        identity, hello, topics = (None, None, ()) if is_echo else self._judge_query(connection, head)
        try:
            await connection.let_in()
        except Crowded as crowd:
            wait = (("Retry-After", str(ceil(crowd.retry_after_s))),)
            raise HeadError(503, "crowd", str(crowd), wait) from None
        transport = open_websocket(
            connection.nursery,
            connection.stream,
            key=head.key,
            trailing=head.trailing,
            subprotocol=subprotocol,
            limit_bytes=CONNECT_BYTES,
            on_bytes=_ignore if is_echo else connection.heard,
        )
        return Opened(transport, identity, hello, topics, _echo if is_echo else None)

    def _check_origin(self, head: RequestHead) -> None:
        """Refuse a browser's page from elsewhere.

        A page can let its own name point to loopback and then be of the same host (DNS rebinding): where nothing but
        that rule stands between a page and this node, the host must be a name of this machine.
        """
        settings = self._context.settings
        origins = OriginPolicy(settings.auth.origins, self._own_ports)
        if not origins.allows_headers(head.origins, head.host, self._tls is not None):
            raise HeadError(403, "forbidden", "this Origin is not allowed; see auth.origins in the configuration")
        if not head.origins or origins.lists(head.origins[0]):
            return
        listen = settings.listen.websocket
        local_only = settings.auth.anonymous and listen and listen.is_loopback
        if local_only and not Address(host_name(head.host), 0).is_loopback:
            raise HeadError(
                403, "forbidden", "this Host is no name of this machine; see auth.origins to allow its pages"
            )

    def _is_merely_own_page(self, head: RequestHead) -> bool:
        """Whether a page is let in, where others are listed, just for being of this node's own port under some name.

        A page from anywhere can make its name point here (DNS rebinding), but not bring along anybody's token. Under an
        address, or a name of this machine, it did come from there.
        """
        listed, name = self._context.settings.auth.origins, host_name(head.host)
        if listed is None or not head.origins or OriginPolicy(listed).lists(head.origins[0]):
            return False
        return ip_of(name) is None and not Address(name, 0).is_loopback

    def _is_local(self, peer: str, head: RequestHead) -> bool:
        """Whether nobody but this machine speaks here: no proxy for others, and no page but this machine's own.

        A page from elsewhere may be allowed to connect (auth.origins), but not to watch the node.
        """
        listen = self._context.settings.listen.websocket
        if listen is None or not listen.is_loopback or not is_local(peer, head.headers, (), ()):
            return False
        is_own_page = OriginPolicy(None, self._own_ports).allows_headers(head.origins, head.host, self._tls is not None)
        return is_own_page and Address(host_name(head.host), 0).is_loopback

    def _judge_query(
        self, connection: Connection, head: RequestHead
    ) -> tuple[Identity | None, Connect | None, tuple[str, ...]]:
        """Read credentials, topics, session and heartbeat; who needs to send `connect` gets no identity here."""
        token = _bearer(head)
        if token is None:  # an empty one was presented too, and is refused like any other
            token = _only(head, "token")
        named = tuple(topic for topic in (_only(head, "topics") or "").split(",") if topic)
        if token is None and not named:
            return None, None, ()
        try:
            identity = authenticate(connection, token)
        except RequestError:
            raise HeadError(401, "unauthorized", UNAUTHORIZED, (("WWW-Authenticate", "Bearer"),)) from None
        for topic in named:
            self._check_topic(topic, identity)
        # Nobody sent this request, so its `connected` answers none: id 0 is left out.
        hello = Connect(id=NO_REQUEST_ID, session=_only(head, "session"), heartbeat=_heartbeat(head))
        return identity, hello, (*named, *(topic for topic in identity.topics if topic not in named))

    def _check_topic(self, topic: str, identity: Identity) -> None:
        try:
            check_topic(topic)
        except ValueError as problem:
            raise HeadError(400, "bad_request", str(problem)) from None
        if not may_subscribe(identity, topic, self._context.settings.policy_for(topic).subscribe):
            self._context.events.count("permission_refusals", operation="subscribe")
            raise HeadError(403, "forbidden", f"not allowed to subscribe to {topic!r}")


def websocket_server(
    context: Context, own_ports: Collection[int], tls: ssl.SSLContext | None
) -> Callable[[SocketStream], Awaitable[None]]:
    """Return what serves one accepted WebSocket client."""
    return WebSocketServer(context, own_ports, tls).serve


async def _read_head(stream: ByteStream) -> RequestHead:
    reader = HeadReader()
    while True:
        data = await stream.receive_some(HEAD_RECEIVE_BYTES)
        if not data:
            raise StreamBroken("the peer left during the handshake")
        head = reader.receive(data)
        if head is not None:
            return head


async def _echo(connection: Connection) -> None:
    """Give every message back as it came (`[debug] echo`)."""
    transport = connection.transport
    assert isinstance(transport, WebSocketTransport)
    transport.set_payload_limit(connection.context.settings.limits.payload_bytes)
    while (messages := await transport.receive_messages()) is not None:
        for message in messages:
            connection.outbox.put_frame(echo_frame(message))
            connection.outbox.flush()
            await connection.outbox.wait_drained()


def _choose_subprotocol(head: RequestHead) -> str | None:
    if not head.subprotocols:
        return None
    for offered in head.subprotocols:
        if offered in SUBPROTOCOLS:
            return offered
    known = " and ".join(SUBPROTOCOLS)
    raise HeadError(400, "bad_request", f"none of the offered subprotocols is known; known are {known}")


def _bearer(head: RequestHead) -> str | None:
    if not head.authorization:
        return None
    scheme, _, token = head.authorization[0].partition(" ")
    if len(head.authorization) > 1 or scheme.lower() != "bearer":
        raise HeadError(401, "unauthorized", UNAUTHORIZED, (("WWW-Authenticate", "Bearer"),))
    return token.strip()


def _only(head: RequestHead, name: str) -> str | None:
    values = head.query.get(name, [])
    if len(values) > 1:
        raise HeadError(400, "bad_request", f"the query has {name!r} more than once")
    return values[0] if values else None


def _heartbeat(head: RequestHead) -> float | None:
    text = _only(head, "heartbeat")
    if text is None:
        return None
    try:
        wish_s = float(text)
    except ValueError:
        wish_s = inf
    if not isfinite(wish_s) or wish_s <= 0:
        raise HeadError(400, "bad_request", "heartbeat is a positive number of seconds")
    return wish_s


def _ignore(size_bytes: int) -> None:
    """Hear nothing: an echo connection has no heartbeat and no limit before connect."""
