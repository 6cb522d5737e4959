"""Where a feed stands in its topic, and what each arrival means for it. Pure: no task, no socket.

Source: spec/wire.md, "Positions" and "Recovery".
"""

from msgspec import UNSET

from protocol.messages import Entry, Gap, HistoryReply, Message, Published, Restored, Since, Subscribed
from protocol.position import Continuity, Position

Arrival = Message | Gap


class Track:
    """Turns what a server sends into what a consumer sees: nothing twice, nothing lost without a Gap.

    `position` is that of the last message or gap taken; None before the first and on a topic without history.
    """

    def __init__(self, topic: str, since: Since) -> None:
        self.topic = topic
        self.position: Position | None = since if isinstance(since, Position) else None
        self._since = since
        self._begun = False
        self._silent: set[Position] = set()

    @property
    def since(self) -> Since:
        """What the next `subscribe` has to ask for."""
        if self.position is None:
            return "latest" if self._begun else self._since
        return "earliest" if self._since == "earliest" and not self.position.offset else self.position

    def begin(self, asked: Since, reply: Subscribed | Restored) -> list[Gap]:
        """Take the server's word for where the subscription stands; return the gap that this tells."""
        top = _position(reply.epoch, reply.offset)
        resumes, self._begun = self._begun, True
        if isinstance(asked, Position):
            last = self.position or asked
            self.position = last
            return [] if reply.recovered is True else self._lose(last, top)
        if asked == "earliest" and top is not None:
            self.position = Position(top.epoch, 0)
            return []
        if reply.recovered is not UNSET:
            self.position = None  # only the server knows from where it goes on: what follows tells
            return []
        self.position = top
        return [self._unnamed("no_history")] if resumes else []

    def take(self, message: Message) -> list[Arrival]:
        """Take a message: itself, after a Gap where something before it is missing; nothing for a duplicate."""
        arrived, last = position_of(message), self.position
        if arrived is None:
            return [message]
        if arrived in self._silent:
            return []
        gaps: list[Gap] = []
        if last is not None:
            continuity = last.judge(arrived)
            if continuity is Continuity.DUPLICATE:
                return []
            if continuity is not Continuity.NEXT:
                gaps = self._missing(last, Position(arrived.epoch, arrived.offset - 1), "skipped")
        self._advance(arrived)
        return [*gaps, message]

    def jumps(self, event: Arrival) -> bool:
        """Whether taking this now would find offsets missing that nobody announced."""
        position = position_of(event)
        return (
            isinstance(event, Message)
            and position is not None
            and self.position is not None
            and self.position.judge(position) is Continuity.GAP
        )

    def pass_over(self, position: Position) -> None:
        """Take note of an offset that the server leaves out: a publish of this client's own, not to be echoed."""
        self._silent.add(position)
        if self.position is not None:
            self._advance(self.position)

    def _advance(self, position: Position) -> None:
        """Stand at `position`, or further where nothing but own publishes follows."""
        if self._silent:
            while (following := Position(position.epoch, position.offset + 1)) in self._silent:
                position = following
            self._silent = {silent for silent in self._silent if position.judge(silent) is Continuity.GAP}
        self.position = position

    def take_gap(self, gap: Gap) -> list[Arrival]:
        """Take a gap that the server told, as far as it is news."""
        last = self.position
        epoch = gap.epoch if gap.epoch is not UNSET else (last.epoch if last else None)
        if epoch is None:
            return [gap]
        end = Position(epoch, gap.last)
        if last is None:
            self.position = end
            return [gap]
        return [] if last.judge(end) is Continuity.DUPLICATE else [*self.jump(end, gap.reason)]

    def take_page(self, page: HistoryReply) -> list[Arrival]:
        """Take a page of history read after `position`."""
        arrivals: list[Arrival] = []
        if self.position is not None and page.epoch is not UNSET and page.epoch != self.position.epoch:
            arrivals += self.jump(Position(page.epoch, 0), "epoch")
        for entry in page.messages:
            arrivals += self.take(_message(entry))
        return arrivals

    def jump(self, position: Position, reason: str) -> list[Gap]:
        """Go on after `position`: what lies between is lost."""
        gaps = [self._unnamed(reason)] if self.position is None else self._missing(self.position, position, reason)
        self.position = position
        return gaps

    def lose_unnamed(self) -> list[Gap]:
        """Tell that messages without positions were lost to a slow consumer."""
        return [self._unnamed("slow")]

    def has_reached(self, position: Position) -> bool:
        """Whether nothing up to `position` is missing any more."""
        return self.position is not None and self.position.judge(position) is Continuity.DUPLICATE

    def _lose(self, last: Position, top: Position | None) -> list[Gap]:
        if top is None:
            self.position = None
            return [self._unnamed("no_history")]
        self.position = top
        return self._missing(last, top, "expired")

    def _missing(self, last: Position, end: Position, reason: str) -> list[Gap]:
        """Name what lies after `last` up to `end`; of an epoch that is over, nothing can be named."""
        if last.epoch != end.epoch:
            first, reason = 1, "epoch"
        else:
            first = last.offset + 1
        if first > end.offset:
            return [self._unnamed(reason)]
        return [Gap(topic=self.topic, first=first, last=end.offset, reason=reason, epoch=end.epoch)]

    def _unnamed(self, reason: str) -> Gap:
        return Gap(topic=self.topic, first=0, last=0, reason=reason)


def position_of(event: Message | Gap | Published) -> Position | None:
    """Return the position a message has or was given, or a gap ends at; None without history."""
    return _position(event.epoch, event.last if isinstance(event, Gap) else event.offset)


def _position(epoch: object, offset: object) -> Position | None:
    return Position(epoch, offset) if isinstance(epoch, str) and isinstance(offset, int) else None


def _message(entry: Entry) -> Message:
    return Message(
        topic=entry.topic,
        data=entry.data,
        time=entry.time,
        epoch=entry.epoch,
        offset=entry.offset,
        sender=entry.sender,
        trace=entry.trace,
    )
