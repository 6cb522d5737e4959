"""The judge of a simulation: hears what clients were told and what Redis really accepted, and names broken promises.

It knows nothing of the product: only the promises of spec/delivery.md and spec/wire.md, as a client sees them.

A durable topic is heard by each client as one `Listening`: what was handed to it, across all its connections, has to
be contiguous; what is missing has to be named by a gap, or be past a new epoch that was told. Every position means the
same message to everybody. What was acknowledged is what Redis accepted. A message appears once.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

Place = tuple[str, int]
"""An epoch and an offset."""


class Broken(NamedTuple):
    """A broken promise: which, when (virtual seconds), and what happened."""

    promise: str
    at_s: float
    story: str


@dataclass
class Listening:
    """One client on one durable topic, across its connections.

    `last` is the newest place it was given or told, None while unknown: it has just asked for the earliest, or only the
    server knows what it was sent. Then `owes_nothing_up_to` is the newest place up to which nothing need come any more.
    `owed_gap` is where a loss was admitted, which has to be named before anything else comes. `replayed_from`: resumed
    by acknowledgements, from this place on messages may come again, up to `last`. `unechoed` are its own messages that
    it does not want to hear.
    """

    client: str
    topic: str
    last: Place | None = None
    owes_nothing_up_to: Place | None = None
    owed_gap: Place | None = None
    replayed_from: Place | None = None
    is_open: bool = False
    heard: dict[Any, Place] = field(default_factory=dict)
    unechoed: set[Any] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.client} on {self.topic} at {self.last}"


class Oracle:
    """Collects what is told; `broken` are the promises that were broken so far."""

    def __init__(self, now_s: Callable[[], float] = lambda: 0.0) -> None:
        self._now_s = now_s
        self.broken: list[Broken] = []
        self.accepted: dict[str, dict[Place, Any]] = defaultdict(dict)
        self.lost: set[Any] = set()
        self.may_lose = False
        self.keeps: dict[str, int] = {}
        self._ever: dict[tuple[str, Place], Any] = {}
        self._meanings: dict[tuple[str, Place], Any] = {}
        self._accepted_data: dict[tuple[str, Any], Place] = {}
        self._listening: dict[tuple[str, str], Listening] = {}
        self._attempts: dict[Any, int] = defaultdict(int)
        self._heard_once: set[tuple[str, Any]] = set()

    def break_(self, promise: str, story: str) -> None:
        """Name a broken promise."""
        self.broken.append(Broken(promise, round(self._now_s(), 4), story))

    # --- what Redis did -----------------------------------------------------------------------------------------------

    def append(self, topic: str, place: Place, data: Any, *, in_vain: bool = False) -> None:
        """Redis accepted a message: in vain where it was a server that had been replaced.

        Such a server knows no keys that the new one has learnt, and all that it accepts is lost: this is known, and
        allowed.
        """
        if in_vain:
            self.lost.add(data)
        earlier = self._accepted_data.get((topic, data))
        if earlier is not None and data not in self.lost:
            self.break_("a message with a key is accepted once", f"{data!r} on {topic}: {earlier}, then {place}")
        self._accepted_data[topic, data] = place
        self._ever[topic, place] = data
        if not in_vain:
            self.accepted[topic][place] = data

    def lose(self, topic: str, kept: dict[Place, Any]) -> None:
        """Redis lost all that it accepted of a topic but `kept`, in a failover: this is known, and allowed."""
        self.lost |= {data for place, data in self.accepted[topic].items() if place not in kept}
        self.accepted[topic] = dict(kept)

    # --- what publishers are told -------------------------------------------------------------------------------------

    def attempt(self, data: Any) -> None:
        """A client sent a message (again)."""
        self._attempts[data] += 1

    def acknowledge(self, client: str, topic: str, place: Place | None, data: Any) -> None:
        """A client was told that its message is accepted, on a durable topic (with a place) or another one."""
        if place is None:
            return
        self._mean(topic, place, data, f"{client} was told that {data!r} is published")
        if data not in self.lost and self.accepted[topic].get(place) != data:
            have = self.accepted[topic].get(place)
            self.break_(
                "what is acknowledged was accepted", f"{client}: {data!r} at {topic} {place}; Redis has {have!r}"
            )

    # --- what subscribers are told ------------------------------------------------------------------------------------

    def listening(self, client: str, topic: str) -> Listening:
        """Return what a client knows of a topic."""
        return self._listening.setdefault((client, topic), Listening(client, topic))

    def subscribe(self, client: str, topic: str, since: Any, told: Place | None, recovered: bool | None) -> None:
        """A `subscribed` reply: `since` is what was asked, `told` the topic's newest place."""
        one = self.listening(client, topic)
        one.is_open, one.replayed_from, one.owed_gap = True, None, None
        if told is None:
            return
        if since == "latest":
            one.last = told
        elif since == "earliest":
            one.last = None
            one.owes_nothing_up_to = None if told in self.accepted[topic] else told  # nothing is kept that could come
        elif recovered:
            self._judge_continuity(one, since, told)
            one.last = since
        else:
            self._judge_refusal(one, since, told)
            one.last = told

    def resume(
        self, one: Listening, told: Place | None, recovered: bool | None, since: Place | None, acked: Place | None
    ) -> None:
        """A topic in `connected` of a resumed session; `since` is the position the client gave, None: the server's."""
        known = one.last
        one.is_open, one.replayed_from, one.owed_gap = True, None, None
        one.owes_nothing_up_to = told
        if told is None or known is None:
            one.last = None if recovered else told
        elif recovered is False:
            if since is not None:
                self._judge_refusal(one, since, told)
            misses = told[1] > 0 and (known[0] != told[0] or known[1] < told[1])
            if misses:
                one.owed_gap, one.owes_nothing_up_to = told, None
            if since is None and acked is None:
                one.last = None  # what was sent last and never acknowledged may be lost: only the server knows
            elif not misses:
                one.last = told if since is not None else None
        elif since is not None:
            self._judge_continuity(one, since, told)
            one.last = since
        elif acked is not None and acked[0] == told[0]:
            one.replayed_from = acked
        elif told != known:
            one.last = None  # it may go on after what was sent last: only the server knows
        else:
            one.replayed_from = (known[0], 0)

    def _judge_continuity(self, one: Listening, since: Place, told: Place) -> None:
        if since[0] != told[0] or since[1] > told[1]:
            self.break_("recovered is only said with proof", f"{one}: recovered from {since}, the newest is {told}")

    def _judge_refusal(self, one: Listening, since: Place, told: Place) -> None:
        """Without a failover, what is still kept can be recovered."""
        if not self.may_lose and self._has_kept(one.topic, since[1] + 1):
            self.break_("what is kept is recovered", f"{one}: not recovered from {since}, the newest is {told}")

    def _has_kept(self, topic: str, offset: int) -> bool:
        """Whether the topic keeps the message with this offset, as long as there was one life of it only."""
        newest = max((place[1] for place in self.accepted[topic]), default=0)
        return newest - self.keeps.get(topic, 1000) < offset

    def close(self, client: str, topic: str) -> None:
        """The client unsubscribed, or was."""
        self.listening(client, topic).is_open = False

    def deliver(self, client: str, topic: str, place: Place | None, data: Any) -> None:
        """A message arrived."""
        one = self.listening(client, topic)
        if not self._attempts[data]:
            self.break_("nothing is made up", f"{client} got {data!r} on {topic}")
        if not one.is_open:
            self.break_("nothing comes after unsubscribed", f"{one} got {place} {data!r}")
        if place is None:
            self._deliver_once(client, topic, data)
            return
        self._mean(topic, place, data, f"{client} got {data!r}")
        self._judge_order(one, place, data)

    def _deliver_once(self, client: str, topic: str, data: Any) -> None:
        if (client, data) in self._heard_once and self._attempts[data] == 1:
            self.break_("a message comes once", f"{client} got {data!r} on {topic} again")
        self._heard_once.add((client, data))

    def _judge_order(self, one: Listening, place: Place, data: Any) -> None:
        self._pass_own(one, place)
        last, again = one.last, one.replayed_from
        if (
            again is not None
            and last is not None
            and again[0] == place[0] == last[0]
            and again[1] < place[1] <= last[1]
        ):
            one.replayed_from = place  # it may come again
            return
        if one.owed_gap is not None:
            self.break_("a loss is told", f"{one}: {place} {data!r} came, and no gap before")
        elif last is not None and place[0] != last[0]:
            self.break_("a new epoch is told", f"{one}: {place} {data!r} came")
        elif last is not None and place[1] <= last[1]:
            self.break_("a message comes once, in order", f"{one}: {place} {data!r} came")
        elif last is not None and place[1] > last[1] + 1:
            self.break_("nothing is lost silently", f"{one}: {place} {data!r} came")
        one.last, one.replayed_from, one.owed_gap = place, None, None
        if one.heard.setdefault(data, place) != place and data not in self.lost:
            self.break_("a message with a key comes once", f"{one}: {data!r} came as {one.heard[data]} before")

    def _pass_own(self, one: Listening, place: Place) -> None:
        one.last = self._past_own(one, one.last, place)

    def _past_own(self, one: Listening, last: Place | None, place: Place) -> Place | None:
        """Go past the client's own messages that it does not want to hear: they may be left out."""
        while last is not None and last[0] == place[0] and last[1] + 1 < place[1]:
            following = (last[0], last[1] + 1)
            if self._ever.get((one.topic, following)) not in one.unechoed:
                break
            last = following
        return last

    def gap(self, one: Listening, epoch: str, first: int, last: int, reason: str) -> None:
        """A `gap` arrived."""
        self._pass_own(one, (epoch, first))
        known = one.last
        if last < first:
            self.break_("a gap names what is missing", f"{one}: from {first} to {last}")
        if known is not None and known[0] == epoch:
            if first > known[1] + 1:
                self.break_("nothing is lost silently", f"{one}: a gap only from {first} on")
            if reason == "epoch" and not self.may_lose:  # its node may have heard of the epoch later than it
                self.break_("a gap tells the reason", f"{one}: reason epoch in the same epoch")
            if not self.may_lose and self._has_kept(one.topic, first):
                self.break_("what is kept is delivered", f"{one}: a gap {first}..{last}, {reason}")
        elif known is not None and reason != "epoch":
            self.break_("a new epoch is told", f"{one}: a gap in epoch {epoch} says {reason}")
        elif known is not None and not self.may_lose:
            self.break_("an epoch lasts", f"{one}: epoch {epoch} began")
        same = known is not None and known[0] == epoch
        one.last = (epoch, max(last, known[1]) if same and known is not None else last)
        one.owed_gap = one.replayed_from = None

    def read(self, client: str, topic: str, messages: list[tuple[Place, Any]]) -> None:
        """A `history` reply."""
        for place, data in messages:
            self._mean(topic, place, data, f"{client} read {data!r}")
        for (one, _), (other, _) in pairwise(messages):
            if other != (one[0], one[1] + 1):
                self.break_("a history has no holes", f"{client} on {topic}: {other} behind {one}")

    def _mean(self, topic: str, place: Place, data: Any, story: str) -> None:
        """A position means one message."""
        known = self._meanings.setdefault((topic, place), data)
        if known != data:
            self.break_("a position means one message", f"{topic} {place}: {story}; it was {known!r} before")

    # --- at the end ---------------------------------------------------------------------------------------------------

    def judge_whole(self, client: str, topic: str, newest: Place) -> None:
        """All faults are over for long enough: a subscriber has everything."""
        one = self.listening(client, topic)
        known = one.owes_nothing_up_to if one.last is None else one.last
        known = self._past_own(one, known, (newest[0], newest[1] + 1))
        if one.is_open and known != newest:
            self.break_("after the faults everybody is made whole", f"{one}; the newest is {newest}")

    def judge_heard(self, client: str, topic: str, data: Any) -> None:
        """The same of a topic without history: what was published now has arrived."""
        if self.listening(client, topic).is_open and (client, data) not in self._heard_once:
            self.break_("after the faults everybody is made whole", f"{client} on {topic} does not get {data!r}")

    def judge_presence(self, asker: str, topic: str, told: set[str], present: set[str]) -> None:
        """Presence converges to who is subscribed."""
        if told != present:
            more, less = sorted(told - present), sorted(present - told)
            self.break_("presence converges", f"{asker} on {topic}: too many {more}, missing {less}")
