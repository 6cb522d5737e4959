"""What a client tells its user when it cannot do what was asked. Each text names what to do about it.

A request that the server itself refused raises `protocol.errors.RequestError` instead.
"""

from notifyd.errors import NotifydError
from protocol.errors import CloseCode

ADVICE = {
    CloseCode.PROTOCOL_ERROR: "client and server do not speak the same version of the protocol",
    CloseCode.UNAUTHORIZED: "give a valid token (`notifyd token` makes one)",
    CloseCode.FORBIDDEN: "the token or its user may not do this; ask for one that may",
    CloseCode.REPLACED: "the same session was resumed elsewhere; open a client with a session of its own",
}
"""What helps, for each close code after which a client does not reconnect by itself."""


class ClientError(NotifydError):
    """The root of the errors a client raises by itself."""


class BadAddress(ClientError):
    """A server URL is not usable; raised before anything is sent."""


class ClientClosed(ClientError):
    """The client was used after its `async with` block."""


class ServerUnreachable(ClientError):
    """No connection could be made, five times in a row, and the client was told to give up then."""


class ConnectionRefused(ClientError):
    """The server ended the connection and asked not to come back: `code` says why."""

    def __init__(self, url: str, code: CloseCode, reason: str) -> None:
        said = f" ({reason})" if reason and reason != code.reason else ""
        super().__init__(f"{url} refused this client: {code} {code.reason}{said}; {ADVICE[code]}")
        self.code = code


class AnswerLost(ClientError):
    """The connection ended between a request and its answer, and the request cannot be repeated safely.

    Whether the server acted on it is not known.
    """


class SubscriptionEnded(ClientError):
    """A subscription is over: `reason` is the server's word for why, or "left" after its own `async with` block."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"the subscription of {topic!r} is over: {reason}")
        self.topic = topic
        self.reason = reason
