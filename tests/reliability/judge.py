"""Who lost what: an oracle over what publishers were told and what subscribers of a durable topic saw. No I/O.

The promise (spec/delivery.md): every acknowledged message reaches every subscriber exactly once and in order, or a gap
names it. A subscriber's account is a list of what it saw, in order:

    Begun(position)                      its first subscription: from here on it wants everything
    Resumed(since, top, recovered)       it came back with `since`; the server says whether it can go on from there
    Arrived(position, data)              a message
    Gapped(epoch, first, last, reason)   a `gap`

A gap to another epoch excuses what of earlier epochs did not come; so does `recovered` false.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.position import Position

MOST_COMPLAINTS = 20
"""Complaints kept for one account: the first ones tell."""


class Acknowledged(NamedTuple):
    """A publisher was told that `data` is in the history at `position`; `when_s` on the test's clock."""

    position: Position
    data: Hashable
    when_s: float = 0.0


class Begun(NamedTuple):
    position: Position


class Resumed(NamedTuple):
    since: Position
    top: Position
    recovered: bool


class Arrived(NamedTuple):
    position: Position
    data: Hashable


class Gapped(NamedTuple):
    epoch: str
    first: int
    last: int
    reason: str


Event = Begun | Resumed | Arrived | Gapped


@dataclass
class Verdict:
    """What is wrong (nothing, if all is well), and what was seen.

    `excused` are acknowledged messages that did not arrive and that a gap, or `recovered` false, told of. `again` are
    data that came a second time in another epoch: a publisher's retry of what a failover had lost.
    """

    complaints: list[str] = field(default_factory=list)
    received: int = 0
    gaps: int = 0
    excused: int = 0
    again: int = 0

    def add(self, other: "Verdict") -> None:
        """Take another account's verdict into this one."""
        self.complaints += other.complaints
        self.received += other.received
        self.gaps += other.gaps
        self.excused += other.excused
        self.again += other.again

    def __str__(self) -> str:
        return f"{self.received} received, {self.gaps} gaps, {self.excused} excused, {self.again} again"


def judge(acknowledged: Sequence[Acknowledged], sent: Iterable[Hashable], accounts: dict[str, list[Event]]) -> Verdict:
    """Compare all accounts of one topic with what was acknowledged. `sent` is every data a publisher ever tried."""
    verdict = Verdict(complaints=_contradictions(acknowledged))
    known = set(sent)
    for name, account in accounts.items():
        trial = _Trial(name)
        for event in account:
            trial.hear(event)
        verdict.add(trial.close(acknowledged, known))
    return verdict


def _contradictions(acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Two messages acknowledged at one position, or one message at two."""
    by_position: dict[Position, Hashable] = {}
    by_data: dict[Hashable, Position] = {}
    complaints = []
    for position, data, _ in acknowledged:
        if by_position.setdefault(position, data) != data:
            complaints.append(f"{_told(position)} was acknowledged for {by_position[position]} and for {data}")
        if by_data.setdefault(data, position) != position:
            complaints.append(f"{data} was acknowledged at {_told(by_data[data])} and at {_told(position)}")
    return complaints


class _Trial:
    """One account, event by event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._verdict = Verdict()
        self._start: Position | None = None
        self._last: Position | None = None
        self._arrived: dict[Position, Hashable] = {}
        self._first_of: dict[Hashable, Position] = {}
        self._epochs: list[str] = []
        self._ranges: list[tuple[str, int, int]] = []

    def hear(self, event: Event) -> None:
        match event:
            case Begun(position):
                if self._start is not None:
                    self._complain(f"began anew at {_told(position)}")
                self._start = position
                self._go_to(position)
            case Resumed(since, top, recovered):
                self._resume(since, top, recovered=recovered)
            case Arrived(position, data):
                self._arrive(position, data)
            case Gapped(epoch, first, last, _):
                self._gap(epoch, first, last)

    def _resume(self, since: Position, top: Position, *, recovered: bool) -> None:
        if since != self._last:
            self._complain(f"asked to go on after {_told(since)} where it stood at {_told(self._last)}")
        if recovered and since.epoch != top.epoch:
            self._complain(f"was told that nothing is missing from {_told(since)} to {_told(top)}")
        if not recovered:
            self._verdict.gaps += 1
            first = since.offset + 1 if since.epoch == top.epoch else 1
            self._ranges.append((top.epoch, first, top.offset))
            self._go_to(top)

    def _arrive(self, position: Position, data: Hashable) -> None:
        self._verdict.received += 1
        last = self._last
        if last is None:
            self._complain(f"got {_told(position)} before it had begun")
        elif position in self._arrived:
            self._complain(f"got {_told(position)} twice: duplicate")
        elif position.epoch != last.epoch:
            self._complain(f"got {_told(position)} after {_told(last)}: no gap told that the epoch is over")
        elif position.offset <= last.offset:
            self._complain(f"got {_told(position)} after {_told(last)}: out of order, or told lost before")
        elif position.offset > last.offset + 1:
            self._complain(f"got {_told(position)} after {_told(last)}: silent loss")
        self._note(position, data)
        self._go_to(position)

    def _note(self, position: Position, data: Hashable) -> None:
        self._arrived[position] = data
        first = self._first_of.setdefault(data, position)
        if first.epoch != position.epoch:
            self._verdict.again += 1
        elif first != position:
            self._complain(f"got {data} at {_told(first)} and at {_told(position)}: doubled")

    def _gap(self, epoch: str, first: int, last: int) -> None:
        self._verdict.gaps += 1
        stood = self._last
        if stood is not None and epoch == stood.epoch:
            if first > stood.offset + 1:
                self._complain(f"was told of a gap from {first} where it stood at {_told(stood)}: silent loss")
            if last < first or first <= stood.offset:
                self._complain(f"was told of a gap {first}..{last} where it stood at {_told(stood)}: false gap")
        self._ranges.append((epoch, first, last))
        self._go_to(Position(epoch, last))

    def _go_to(self, position: Position) -> None:
        if not self._epochs or self._epochs[-1] != position.epoch:
            self._epochs.append(position.epoch)
        self._last = position

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, acknowledged: Sequence[Acknowledged], known: set[Hashable]) -> Verdict:
        """Hold what arrived against what was acknowledged, once nothing more is to come."""
        self._judge_contents(acknowledged, known)
        for epoch, first, last in self._ranges:
            named = [offset for offset in range(first, last + 1) if Position(epoch, offset) in self._arrived]
            if named:
                self._complain(f"was told that {epoch}:{named[0]} ({len(named)} in all) is lost and got it: false gap")
        self._judge_losses(acknowledged)
        return self._verdict

    def _judge_contents(self, acknowledged: Sequence[Acknowledged], known: set[Hashable]) -> None:
        for position, data, _ in acknowledged:
            if self._arrived.get(position, data) != data:
                self._complain(f"got {self._arrived[position]} at {_told(position)}, acknowledged for {data}")
        for position, data in self._arrived.items():
            if data not in known:
                self._complain(f"got {data} at {_told(position)}, which nobody published")

    def _judge_losses(self, acknowledged: Sequence[Acknowledged]) -> None:
        newest = acknowledged[-1].position if acknowledged else self._last
        if newest is not None and self._epochs[-1:] != [newest.epoch]:
            self._complain(f"stands at {_told(self._last)} and never heard of {_told(newest)}")
        missing = [ack for ack in acknowledged if ack.data not in self._first_of and not self._was_before(ack.position)]
        for position, data, _ in missing:
            if self._is_excused(position):
                self._verdict.excused += 1
            else:
                self._complain(f"never got {data}, acknowledged at {_told(position)}: silent loss")

    def _was_before(self, position: Position) -> bool:
        start = self._start
        return start is not None and start.epoch == position.epoch and position.offset <= start.offset

    def _is_excused(self, position: Position) -> bool:
        if len(self._epochs) > 1 and position.epoch != self._epochs[-1]:
            return True  # it was told that another epoch began
        return any(epoch == position.epoch and first <= position.offset <= last for epoch, first, last in self._ranges)

    def _complain(self, what: str) -> None:
        if len(self._verdict.complaints) < MOST_COMPLAINTS:
            self._verdict.complaints.append(f"{self._name} {what}")


def _told(position: Position | None) -> str:
    return "nowhere" if position is None else f"{position.epoch}:{position.offset}"
