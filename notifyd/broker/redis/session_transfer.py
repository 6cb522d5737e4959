"""Sessions on their way between nodes: the store says whose a session was, the node that has it gives it up itself.

The store's record may be a moment behind a session that lives: so its owner is asked for the newest one, and closes the
old connection with 4100. An owner that died is not waited for: nobody hears the question.
"""

from typing import Any

import msgspec

from notifyd.broker.base import Receiver, SessionRecord
from notifyd.broker.redis.control import Control
from notifyd.broker.redis.membership import Membership
from notifyd.broker.redis.parallel import for_each
from notifyd.broker.redis.sessions import RedisSessions
from notifyd.model import SessionId

TAKE_OVER_S = 1.0
"""How long a node that lives may take to give a session up; then the store's record has to do."""


class SessionTransfer:
    """The sessions of all nodes, as one node sees them. Every method but `give_up` raises BrokerUnavailable."""

    def __init__(self, sessions: RedisSessions, control: Control, membership: Membership, receiver: Receiver) -> None:
        self._sessions = sessions
        self._control = control
        self._membership = membership
        self._receiver = receiver
        control.handlers["take_over"] = self._give_up
        control.handlers["end_session"] = self._end_here

    async def load(self, session: SessionId, user: str) -> SessionRecord | None:
        """Make this node the owner of a session; None when it is unknown, expired or another user's."""
        taken = await self._sessions.take(session, user)
        if taken is None:
            return None
        record, owner = taken
        if owner is not None:
            # What still lives here had been taken unheard: its connection ends, but its member goes on and leaves late.
            self._membership.give_up(session)
            self._receiver.take_over(session)
            record = await self._newest(record, owner)
        self._membership.take_back(session)
        return record

    async def _newest(self, record: SessionRecord, owner: str) -> SessionRecord:
        """Return the record that the node which had a session until now gives up; where it gives none, the store's."""
        message = {"op": "take_over", "session": record.session, "claim": self._sessions.claim(record.session)}
        answer = await self._control.ask(owner, message, TAKE_OVER_S)
        newest = None if answer is None else answer.get("record")
        try:
            return record if newest is None else msgspec.convert(newest, SessionRecord)
        except msgspec.ValidationError:  # some other version's
            return record

    async def save(self, record: SessionRecord, ttl_s: float) -> bool:
        """Keep a session; False where another node owns it."""
        is_ours = await self._sessions.save(record, ttl_s)
        if not is_ours:
            self._membership.give_up(record.session)
        return is_ours

    async def end(self, session: SessionId) -> bool:
        """Let the node that has a session disconnect it; without topics the store does not know it: all are asked."""
        owner = await self._sessions.owner(session)
        nodes = await self._membership.others() if owner is None else [owner]

        async def ended_by(node: str) -> bool:
            answer = await self._control.ask(node, {"op": "end_session", "session": session}, TAKE_OVER_S)
            return answer is not None and answer.get("ended") is True

        return any(await for_each(ended_by, nodes))

    def _give_up(self, message: dict[str, Any]) -> dict[str, Any]:
        session = SessionId(message["session"])
        if message["claim"] < self._sessions.claim(session):  # this node has taken it back since
            return {"record": None}
        self._membership.give_up(session)
        record = self._receiver.take_over(session)
        return {"record": None if record is None else msgspec.to_builtins(record)}

    def _end_here(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"ended": self._receiver.end_session(SessionId(message["session"]))}
