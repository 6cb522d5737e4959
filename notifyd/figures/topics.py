"""Which topics are busiest: a pure choice out of what was counted, what is subscribed and what was listed before."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from heapq import nsmallest
from itertools import islice

from notifyd.figures.messages import TopicFigures
from notifyd.hub.registry import Registry
from notifyd.hub.topic_counts import TopicCount, newest
from protocol.position import Position
from protocol.topics import is_reserved

MOST_TOPICS = 100
"""Topics that are listed."""

REMEMBERED_TOPICS = 1000
"""Topics that stay in the choice when they fall silent, and silent ones that are looked at for want of others."""

_NO_TRAFFIC = TopicCount()


class BusiestTopics:
    """Chooses the topics to list. It remembers those it saw: a list whose lines come and go can not be read."""

    def __init__(self, registry: Registry, history_of: Callable[[str], int]) -> None:
        self._registry = registry
        self._history_of = history_of
        self._remembered: OrderedDict[str, Position | None] = OrderedDict()

    def begin(self, known: Mapping[str, Position | None]) -> None:
        """Begin anew, with topics that are known from elsewhere."""
        self._remembered = OrderedDict(islice(known.items(), REMEMBERED_TOPICS))

    def choose(self, traffic: Mapping[str, TopicCount], elapsed_s: float) -> tuple[list[TopicFigures], bool]:
        """Return the topics with the most messages in these seconds, then the most subscribers; and whether of more."""
        for name, one in traffic.items():
            self._remember(name, one.position)
        here = self._registry.topics
        for name in islice(here, max(0, REMEMBERED_TOPICS - len(self._remembered))):
            self._remember(name, here[name].position)
        candidates = [name for name in self._remembered if self._is_alive(name, traffic)]

        def rank(name: str) -> tuple[int, int, str]:
            one, topic = traffic.get(name, _NO_TRAFFIC), here.get(name)
            return -one.published - one.delivered, 0 if topic is None else -topic.subscribers, name

        chosen = nsmallest(MOST_TOPICS, candidates, rank)
        figures = [self._describe(name, traffic.get(name, _NO_TRAFFIC), elapsed_s) for name in chosen]
        while len(self._remembered) > REMEMBERED_TOPICS:
            self._remembered.popitem(last=False)
        return figures, len(candidates) > len(chosen)

    def _is_alive(self, name: str, traffic: Mapping[str, TopicCount]) -> bool:
        """Whether there is anything to say of a topic: without history, nothing is left of it when nobody is."""
        is_used = name in traffic or name in self._registry.topics or self._remembered[name] is not None
        return is_used and not is_reserved(name)

    def _remember(self, name: str, position: Position | None) -> None:
        self._remembered[name] = newest(self._remembered.get(name), position)
        self._remembered.move_to_end(name)

    def _describe(self, name: str, one: TopicCount, elapsed_s: float) -> TopicFigures:
        topic = self._registry.topics.get(name)
        position = self._remembered.get(name)
        return TopicFigures(
            name,
            0 if topic is None else topic.subscribers,
            round(one.published / elapsed_s, 1),
            round(one.delivered / elapsed_s, 1),
            self._history_of(name),
            None if position is None else position.epoch,
            None if position is None else position.offset,
        )
