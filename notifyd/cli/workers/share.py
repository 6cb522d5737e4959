"""What each worker gets of the settings."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from notifyd.settings import FIXED_SECTIONS, Address, ConnectionLimit, Settings


@dataclass(frozen=True, slots=True)
class Share:
    """What makes a worker's settings of the node's: called with them, it returns its share.

    What was opened at the start stays as it is in `first`, whatever is read later: a worker that replaces another one
    has what the others have.
    """

    first: Settings
    number: int
    addresses: Mapping[str, Address]

    def __call__(self, settings: Settings) -> Settings:
        """Return the worker's share."""
        kept = {name: getattr(self.first, name) for name in FIXED_SECTIONS}
        return share_of(msgspec.structs.replace(settings, **kept), self.number, self.addresses)


def share_of(settings: Settings, number: int, addresses: Mapping[str, Address]) -> Settings:
    """Return the settings of worker `number`, from 1. `addresses` are those held for the listeners, by their name.

    `limits.connections` is what an operator planned this machine for, so it is divided: together the workers admit no
    more than the limit, and each at least one client. As the kernel spreads clients evenly but not exactly, one worker
    is full a little before the others, and refuses what they could still have taken.

    All other limits are those of one client, or, with `limits.user_messages`, of a user's connections to one worker.
    """
    node = msgspec.structs.replace(settings.node, name=f"{settings.node.name}-{number}")
    ports = {name: _with_port(getattr(settings.listen, name), address.port) for name, address in addresses.items()}
    listen = msgspec.structs.replace(settings.listen, **ports)
    connections = _part_of(settings.limits.connections, number, settings.node.workers)
    limits = msgspec.structs.replace(settings.limits, connections=connections)
    return msgspec.structs.replace(settings, node=node, listen=listen, limits=limits)


def _with_port(address: Address | None, port: int) -> Address | None:
    """Put the port that was found for port 0 in its place."""
    return address if address is None or address.port else Address(address.host, port)


def _part_of(whole: ConnectionLimit, number: int, workers: int) -> ConnectionLimit:
    limit = _part(whole.limit, number, workers)
    return ConnectionLimit(limit=limit, resume=min(limit, _part(whole.resume, number, workers)))


def _part(whole: int, number: int, workers: int) -> int:
    """Divide without a rest: the first workers get one more."""
    return max(1, whole // workers + (number <= whole % workers))
