"""The nouns that every part of a node shares."""

from dataclasses import dataclass
from typing import Any, NewType

import msgspec

from protocol.position import Position
from protocol.topics import Pattern

SessionId = NewType("SessionId", str)
"""Names a client across its connections; unguessable, so that knowing it and being its user is enough to resume."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is and what its token allows.

    `user` is "" for an anonymous client. `expires_s` and `issued_s` are Unix time, None where nothing expires or the
    token does not say. `topics` are subscribed when the client connects. An `operator` may watch the node itself;
    `api_key` is the digest of the key that proved it, None where being on the node's own machine did.
    """

    user: str
    anonymous: bool = False
    subscribe: tuple[Pattern, ...] = ()
    publish: tuple[Pattern, ...] = ()
    topics: tuple[str, ...] = ()
    expires_s: float | None = None
    token_id: str | None = None
    issued_s: float | None = None
    operator: bool = False
    api_key: bytes | None = None


ANONYMOUS = Identity(user="", anonymous=True)

OPERATOR = "$operator"
"""The user that everybody is who shows an API key, and nobody else."""


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A message as the broker accepted it; made for each publish, hence a Struct: a dataclass takes 1 us more.

    `time_ms` is Unix time. `position` is None where the topic keeps no history; `sender` where a backend published it.
    `origin` names the session whose own connection is left out of the delivery, None where all receive it. `trace` is
    the trace it belongs to (protocol.trace), None where nobody gave it one. `received_s` is when this very node was
    given it to publish, on its monotonic clock; None where another node was.
    """

    topic: str
    data: Any
    time_ms: int
    position: Position | None = None
    sender: str | None = None
    origin: SessionId | None = None
    trace: str | None = None
    received_s: float | None = None
