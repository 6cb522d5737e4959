"""What a node says about itself on topics of its own, and which of them somebody watches.

What costs something to say is said only while a client subscribes to it, here or, as its node says, on another one.
"""

from collections.abc import Callable, Iterable

from notifyd.hub.registry import Registry

FIGURES_TOPIC = "$sys:figures"
TOPICS_TOPIC = "$sys:topics"
CONNECTIONS_TOPIC = "$sys:connections"
TREE_TOPIC = "$sys:tree"

ON_DEMAND = (TOPICS_TOPIC, CONNECTIONS_TOPIC, TREE_TOPIC)
"""Said only while somebody watches."""

HOLD_S = 10.0
"""For so long a node believes another one that its clients watch, in seconds."""

RENEW_S = 3.0
"""How often it is told again: two may be lost."""


class Watches:
    """Who watches what this node says on demand. Times are of the node's monotonic clock, in seconds."""

    def __init__(self, registry: Registry, monotonic_s: Callable[[], float]) -> None:
        self._registry = registry
        self._monotonic_s = monotonic_s
        self._elsewhere: dict[str, float] = {}
        self._told: frozenset[str] = frozenset()
        self._tell_s = 0.0

    def hear(self, topics: Iterable[str]) -> None:
        """Take note that clients of another node watch these topics."""
        until_s = self._monotonic_s() + HOLD_S
        self._elsewhere.update((topic, until_s) for topic in ON_DEMAND if topic in topics)

    def here(self) -> frozenset[str]:
        """Return what this node's own clients watch."""
        return frozenset(topic for topic in ON_DEMAND if topic in self._registry.topics)

    def watched(self) -> frozenset[str]:
        """Return what anybody watches."""
        now_s = self._monotonic_s()
        return self.here() | {topic for topic, until_s in self._elsewhere.items() if now_s < until_s}

    def to_tell(self) -> frozenset[str]:
        """Return what other nodes have to be told now that this one's clients watch: nothing most of the time."""
        here, now_s = self.here(), self._monotonic_s()
        if not here or (here <= self._told and now_s < self._tell_s):
            return frozenset()
        self._told, self._tell_s = here, now_s + RENEW_S
        return here
