"""The states of something that keeps itself connected, as a table: a client, a link to a broker, a supervised service.

Source: spec/states.md is generated from this file.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from protocol.errors import LocalProtocolError


class ConnectionState(StrEnum):
    """Where it stands, in the words that logs, consoles and clients show."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    BACKING_OFF = "backing off"
    UNAVAILABLE = "unavailable"


class Trigger(StrEnum):
    """What may happen to it.

    OPEN: a connection is wanted. ACCEPTED: the peer said `connected`. FAILED: an attempt failed; FAILED_REPEATEDLY: the
    fifth in a row or a later one did. LOST: a standing connection ended, and another may be tried. RETRY: the wait is
    over. CLOSE: no connection is wanted any more, or the peer forbade to come back.
    """

    OPEN = "open"
    ACCEPTED = "accepted"
    FAILED = "failed"
    FAILED_REPEATEDLY = "failed repeatedly"
    LOST = "lost"
    RETRY = "retry"
    CLOSE = "close"


_State = ConnectionState

TRANSITIONS: Mapping[tuple[ConnectionState, Trigger], ConnectionState] = MappingProxyType(
    {
        (_State.DISCONNECTED, Trigger.OPEN): _State.CONNECTING,
        (_State.DISCONNECTED, Trigger.CLOSE): _State.DISCONNECTED,
        (_State.CONNECTING, Trigger.ACCEPTED): _State.CONNECTED,
        (_State.CONNECTING, Trigger.FAILED): _State.BACKING_OFF,
        (_State.CONNECTING, Trigger.FAILED_REPEATEDLY): _State.UNAVAILABLE,
        (_State.CONNECTING, Trigger.CLOSE): _State.DISCONNECTED,
        (_State.CONNECTED, Trigger.LOST): _State.BACKING_OFF,
        (_State.CONNECTED, Trigger.CLOSE): _State.DISCONNECTED,
        (_State.BACKING_OFF, Trigger.RETRY): _State.CONNECTING,
        (_State.BACKING_OFF, Trigger.CLOSE): _State.DISCONNECTED,
        (_State.UNAVAILABLE, Trigger.RETRY): _State.CONNECTING,
        (_State.UNAVAILABLE, Trigger.CLOSE): _State.DISCONNECTED,
    }
)
"""Every possible step. UNAVAILABLE is backing off after five failures or more: trying goes on, and the user knows."""


class Connecting:
    """One walk through the table, beginning at DISCONNECTED."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ConnectionState.DISCONNECTED

    def on(self, trigger: Trigger) -> ConnectionState:
        """Take a step; return the new state. Raises LocalProtocolError for a step the table does not have."""
        try:
            self.state = TRANSITIONS[self.state, trigger]
        except KeyError:
            raise LocalProtocolError(f"{trigger.name} is impossible in the state {self.state.value!r}") from None
        return self.state
