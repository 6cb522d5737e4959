"""Sessions in Redis: what each had, whose it is, and which node owns it. Only its owner writes it."""

from typing import TypeAlias

import msgspec
import trio

from notifyd.broker.base import SessionRecord
from notifyd.broker.redis.client import client_at
from notifyd.broker.redis.history import milliseconds
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.scripts import Script
from notifyd.broker.redis.topology.base import Servers
from notifyd.errors import BrokerUnavailable
from notifyd.model import SessionId
from protocol.position import Position

MOST_RECORD_BYTES = 4 * 2**20
"""Some 15,000 topics of the longest names: a session of more is an attack, or a mistake."""

UNSAVED_S = 60.0
"""How long a session that was taken may remain unsaved before it is forgotten that it was."""

CLAIMS_BETWEEN_SWEEPS = 1000

Stored: TypeAlias = tuple[dict[str, tuple[str, int] | None], list[str]]
"""A record as it is stored: positions by topic, and the topics whose position was acknowledged."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode


class RedisSessions:
    """The sessions of all nodes; `node` is the owner of those that are saved or taken here.

    Every method raises BrokerUnavailable.
    """

    def __init__(self, servers: Servers, names: Names, node: str) -> None:
        self._servers = servers
        self._names = names
        self._node = node
        self._save = Script("save_session")
        self._take = Script("take_session", preludes=("time",))
        self._claims: dict[str, tuple[int, float]] = {}
        self._sweep_at = CLAIMS_BETWEEN_SWEEPS

    def claim(self, session: str) -> int:
        """Tell when this node took a session that it has (us by Redis's clock); 0 where it began here."""
        return self._claims.get(session, (0, 0.0))[0]

    def _keep_claim(self, session: SessionId, claim: int, ttl_s: float) -> None:
        if claim:
            now_s = trio.current_time()
            self._claims[session] = (claim, now_s + ttl_s)
            if len(self._claims) >= self._sweep_at:
                self._claims = {name: held for name, held in self._claims.items() if held[1] > now_s}
                self._sweep_at = 2 * len(self._claims) + CLAIMS_BETWEEN_SWEEPS

    async def save(self, record: SessionRecord, ttl_s: float) -> bool:
        """Keep a session for `ttl_s` seconds as this node's; False, and nothing is kept, where another node owns it."""
        self._keep_claim(record.session, self.claim(record.session), ttl_s + UNSAVED_S)
        packed = _pack(record)
        arguments = (self._node, record.user, packed, milliseconds(ttl_s))
        return bool(await self._servers.evaluate(self._save, [self._names.session(record.session)], arguments))

    async def take(self, session: SessionId, user: str) -> tuple[SessionRecord, str | None] | None:
        """Make this node the owner of a session; return what it had, and the node that owned it, None for this one.

        None when it is unknown, expired or another user's, whose it then stays. Until it is saved it ends when it
        would have ended anyway.
        """
        answer = await self._servers.evaluate(self._take, [self._names.session(session)], (self._node, user))
        if answer is None:
            return None
        packed, owner, taken_us = answer
        self._keep_claim(session, taken_us, UNSAVED_S)
        try:
            record = _unpack(session, user, packed)
        except msgspec.DecodeError:  # some other version's
            return None
        return record, None if owner.decode() == self._node else owner.decode()

    async def owner(self, session: SessionId) -> str | None:
        """Tell which node owns a session; None when it is unknown or expired."""
        key = self._names.session(session)
        owner = await client_at(self._servers, key).hget(key, "o")
        return owner.decode() if isinstance(owner, bytes) else None


def _pack(record: SessionRecord) -> bytes:
    positions = {
        topic: None if position is None else (position.epoch, position.offset)
        for topic, position in record.positions.items()
    }
    packed = _encode((positions, sorted(record.acknowledged)))
    if len(packed) > MOST_RECORD_BYTES:
        raise BrokerUnavailable(
            f"a session of {len(record.positions)} topics takes {len(packed)} bytes; {MOST_RECORD_BYTES} are kept"
        )
    return packed


def _unpack(session: SessionId, user: str, packed: bytes) -> SessionRecord:
    stored, acknowledged = _decode(packed)
    positions = {topic: None if place is None else Position(*place) for topic, place in stored.items()}
    return SessionRecord(session, user, positions, frozenset(acknowledged))
