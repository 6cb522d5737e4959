"""Where a subscriber stands in a topic: an epoch and an offset, and what the next message means for it.

Source: spec/wire.md, "Positions".
"""

from enum import Enum
from typing import Annotated, TypeAlias

import msgspec

Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A place in one epoch: a signed 64-bit counter in every store and language."""


MAX_OFFSET = 2**63 - 1
"""Offsets are signed 64-bit numbers in every client's language."""


class Continuity(Enum):
    """What a newly arrived position is, seen from the last one."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    GAP = "gap"
    NEW_EPOCH = "new epoch"


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a topic's history.

    `epoch` names one unbroken life of the history; offsets count its messages from 1, and 0 stands before the first.
    Positions of different epochs cannot be compared.
    """

    epoch: str
    offset: Offset

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `EPOCH:OFFSET`, the form of a position in URLs and on the command line; ValueError for anything else."""
        epoch, _, offset = text.rpartition(":")
        if not epoch or not (offset.isascii() and offset.isdigit()) or len(offset) > 19 or int(offset) > MAX_OFFSET:
            raise ValueError(f"{text[:64]!r} is not EPOCH:OFFSET")
        return cls(epoch, int(offset))

    def judge(self, arrived: "Position") -> Continuity:
        """Say whether `arrived` follows this position, repeats the past, leaves a gap or belongs to another epoch."""
        if arrived.epoch != self.epoch:
            return Continuity.NEW_EPOCH
        if arrived.offset <= self.offset:
            return Continuity.DUPLICATE
        return Continuity.NEXT if arrived.offset == self.offset + 1 else Continuity.GAP
