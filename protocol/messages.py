"""Every message of the wire as a type, and their JSON and MessagePack forms from the same types.

One flat object a message; `op` says which. Requests come from clients, replies and pushes from the server.

Source: spec/wire.md, "Messages"; spec/messages.schema.json is generated from this file.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from protocol.data import MAX_DATA_DEPTH, check_data
from protocol.envelope import MAX_ID, check_utf8, read_envelope
from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.framing import Encoding
from protocol.position import Offset, Position

MAX_KEY_CHARACTERS = 128
"""An idempotency key: a UUID, a hash or a short sentence; each is remembered for minutes, so its size is bounded."""

MAX_PROBLEM_CHARACTERS = 200
"""What an error says may quote the request; a long request does not make a long error."""

NO_REQUEST_ID = 0
"""Stands for the id of a request that nobody sent, such as the `connect` that a WebSocket handshake implies."""

RequestId: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_ID)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARACTERS)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
Since: TypeAlias = Position | Literal["earliest", "latest"]


class ClientInfo(Struct, frozen=True):
    """Which program a client is; shown to operators."""

    name: Annotated[str, Meta(max_length=128)] = ""
    version: Annotated[str, Meta(max_length=128)] = ""


# --- requests: what a client sends ---------------------------------------------------------------------------------


class Connect(Struct, tag="connect", tag_field="op", kw_only=True):
    """Open the session. `heartbeat` is in seconds; `positions` say where to resume each topic."""

    id: RequestId
    token: str | None = None
    session: str | None = None
    client: ClientInfo | None = None
    heartbeat: Seconds | None = None
    positions: dict[str, Position] | None = None


class Subscribe(Struct, tag="subscribe", tag_field="op", kw_only=True):
    """Receive a topic's messages, from now on or from a position in the past."""

    id: RequestId
    topic: str
    since: Since = "latest"


class Unsubscribe(Struct, tag="unsubscribe", tag_field="op", kw_only=True):
    """Stop receiving a topic."""

    id: RequestId
    topic: str


class Publish(Struct, tag="publish", tag_field="op", kw_only=True):
    """Send `data` to every subscriber of a topic. Without `id` it is not answered; `trace` is a traceparent."""

    topic: str
    data: Any
    id: RequestId | None = None
    key: Key | None = None
    echo: bool = True
    trace: str | None = None


class Ack(Struct, tag="ack", tag_field="op", kw_only=True):
    """Everything of the topic up to `offset` has been handled. Without `id` it is not answered."""

    topic: str
    offset: Offset
    id: RequestId | None = None


class Presence(Struct, tag="presence", tag_field="op", kw_only=True):
    """Ask who is subscribed."""

    id: RequestId
    topic: str


class History(Struct, tag="history", tag_field="op", kw_only=True):
    """Ask for kept messages after `since` (exclusive), oldest first."""

    id: RequestId
    topic: str
    since: Since = "earliest"
    limit: Limit = 100


class Call(Struct, tag="call", tag_field="op", kw_only=True):
    """Call a backend's method."""

    id: RequestId
    method: str
    data: Any = None


class Refresh(Struct, tag="refresh", tag_field="op", kw_only=True):
    """Replace the connection's token by a fresh one of the same user."""

    id: RequestId
    token: str


class Ping(Struct, tag="ping", tag_field="op", kw_only=True):
    """A sign of life for clients that can send neither binary nor control frames."""

    id: RequestId


Request: TypeAlias = Connect | Subscribe | Unsubscribe | Publish | Ack | Presence | History | Call | Refresh | Ping


# --- replies and pushes: what the server sends ---------------------------------------------------------------------


class Restored(Struct, frozen=True, omit_defaults=True):
    """How a subscription made by `connected` stands: its position, and whether everything before it will arrive."""

    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Connected(Struct, tag="connected", tag_field="op", kw_only=True):
    """The session is open; without `id` it answers a WebSocket handshake.

    `heartbeat` is in seconds, `expires` (the token's) in Unix seconds; `topics` are those subscribed by this very step.
    """

    session: str
    resumed: bool
    user: str
    node: str
    heartbeat: float
    id: int | UnsetType = UNSET
    expires: int | UnsetType = UNSET
    topics: dict[str, Restored] | UnsetType = UNSET


class Subscribed(Struct, tag="subscribed", tag_field="op", kw_only=True):
    """The topic's messages follow: first the missed ones, then live ones."""

    id: int
    topic: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    recovered: bool | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Unsubscribed(Struct, tag="unsubscribed", tag_field="op", kw_only=True):
    """The topic's messages stop: as a reply with `id`, as a push with `reason`."""

    topic: str
    id: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Published(Struct, tag="published", tag_field="op", kw_only=True):
    """The message was accepted, at this position where the topic keeps history."""

    id: int
    topic: str
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    scope: Literal["node"] | UnsetType = UNSET


class Acked(Struct, tag="acked", tag_field="op", kw_only=True):
    """The acknowledgement was taken."""

    id: int
    topic: str
    offset: int


class Member(Struct, frozen=True, kw_only=True, gc=False):
    """One subscribed session of a user, `since` Unix ms."""

    user: str
    session: str
    since: int


class PresenceReply(Struct, tag="presence", tag_field="op", kw_only=True):
    """Who is subscribed."""

    id: int
    topic: str
    members: list[Member]


class Entry(Struct, omit_defaults=True, kw_only=True):
    """A kept message inside a history reply."""

    topic: str
    data: Any
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    time: int
    sender: str | UnsetType = UNSET
    trace: str | UnsetType = UNSET


class HistoryReply(Struct, tag="history", tag_field="op", kw_only=True):
    """Kept messages, oldest first; `more` when the limit left some out."""

    id: int
    topic: str
    messages: list[Entry]
    more: bool
    epoch: str | UnsetType = UNSET


class Result(Struct, tag="result", tag_field="op", kw_only=True):
    """What a backend's method returned."""

    id: int
    data: Any


class Refreshed(Struct, tag="refreshed", tag_field="op", kw_only=True):
    """The new token holds, until `expires` (Unix seconds) where it expires."""

    id: int
    expires: int | UnsetType = UNSET


class Pong(Struct, tag="pong", tag_field="op", kw_only=True):
    """The answer to a `ping` message."""

    id: int


class Message(Struct, tag="message", tag_field="op", kw_only=True):
    """A published message. `time` (Unix ms) is when the broker accepted it, `sender` the user who published it."""

    topic: str
    data: Any
    time: int
    epoch: str | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    sender: str | UnsetType = UNSET
    trace: str | UnsetType = UNSET


class Joined(Struct, tag="joined", tag_field="op", kw_only=True):
    """A session subscribed to the topic."""

    topic: str
    user: str
    session: str


class Left(Struct, tag="left", tag_field="op", kw_only=True):
    """A session is no longer subscribed to the topic."""

    topic: str
    user: str
    session: str


class Gap(Struct, tag="gap", tag_field="op", kw_only=True):
    """The offsets `from` to `to` (inclusive) were not delivered; `history` has what is still kept of them."""

    topic: str
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    reason: str
    epoch: str | UnsetType = UNSET


class GoAway(Struct, tag="goaway", tag_field="op", kw_only=True):
    """Reconnect at a random moment between `after` and `after + within` seconds from now."""

    reason: str
    after: float
    within: float


class Error(Struct, tag="error", tag_field="op", kw_only=True):
    """A request failed (with its `id`), or the connection is about to end. `retry_after` is in seconds."""

    code: int
    reason: str
    message: str
    id: int | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET


ServerMessage: TypeAlias = (
    Connected
    | Subscribed
    | Unsubscribed
    | Published
    | Acked
    | PresenceReply
    | HistoryReply
    | Result
    | Refreshed
    | Pong
    | Message
    | Joined
    | Left
    | Gap
    | GoAway
    | Error
)


# --- encoding and decoding -----------------------------------------------------------------------------------------

_DECODERS = {Encoding.JSON: msgspec.json.Decoder, Encoding.MSGPACK: msgspec.msgpack.Decoder}
_decode_request = {encoding: decoder(Request).decode for encoding, decoder in _DECODERS.items()}
_decode_server_message = {encoding: decoder(ServerMessage).decode for encoding, decoder in _DECODERS.items()}
_encode_message = {Encoding.JSON: msgspec.json.Encoder().encode, Encoding.MSGPACK: msgspec.msgpack.Encoder().encode}
_known_ops = frozenset(request.__struct_config__.tag for request in Request.__args__)
_known_server_ops = frozenset(message.__struct_config__.tag for message in ServerMessage.__args__)


def encode(message: Request | ServerMessage | Entry, encoding: Encoding) -> bytes:
    """Write a message down. `bytes` inside `data` become base64 text in JSON and `bin` in MessagePack."""
    return _encode_message[encoding](message)


def decode_request(payload: bytes | str, encoding: Encoding) -> Request:
    """Read a client's message.

    Raises RequestError 400 (with the request's id where it has a valid one) for an unknown `op`, a missing or mistyped
    field and for data that one of the encodings cannot carry; RemoteProtocolError for bytes that are no message at all.
    """
    if encoding is Encoding.JSON:
        check_utf8(payload)
    try:
        request: Request = _decode_request[encoding](payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as failure:
        raise _judge_failure(payload, encoding, failure) from None
    if type(request) is Publish or type(request) is Call:
        try:
            check_data(request.data)
        except RequestError as error:
            error.request_id = request.id
            raise
    return request


def decode_server_message(payload: bytes | str, encoding: Encoding) -> ServerMessage | None:
    """Read a server's message; None for an `op` this version does not know, which a client ignores.

    Raises RemoteProtocolError for anything else.
    """
    if encoding is Encoding.JSON:
        check_utf8(payload)
    try:
        message: ServerMessage = _decode_server_message[encoding](payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as failure:
        op = read_envelope(payload, encoding).op
        if op is not None and op not in _known_server_ops:
            return None
        raise RemoteProtocolError(f"not a server message: {failure}") from None
    return message


def _judge_failure(payload: bytes | str, encoding: Encoding, failure: Exception) -> RequestError:
    """Make the answer to a request that is wrong; raises RemoteProtocolError where the bytes are no message at all."""
    envelope = read_envelope(payload, encoding)
    is_known = envelope.op is None or envelope.op in _known_ops
    problem = _problem(failure, encoding) if is_known else f"unknown op {envelope.op!r}"
    if len(problem) > MAX_PROBLEM_CHARACTERS:
        problem = problem[:MAX_PROBLEM_CHARACTERS] + "…"
    return RequestError(ErrorCode.BAD_REQUEST, f"bad request: {problem}", request_id=envelope.id)


def _problem(failure: Exception, encoding: Encoding) -> str:
    if isinstance(failure, RecursionError):
        return f"more than {MAX_DATA_DEPTH} lists and objects inside each other"
    if isinstance(failure, UnicodeError):
        return "a string is not valid UTF-8"
    if encoding is Encoding.JSON and not isinstance(failure, msgspec.ValidationError):
        return "a string holds half of a surrogate pair"
    return str(failure)
