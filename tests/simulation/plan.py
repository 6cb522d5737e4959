"""A simulated minute as data: who takes part, what they do, and what goes wrong when. It is drawn, shrunk and replayed.

Times are in tenths of a virtual second from the beginning. All faults are over at `LAST`; what has to be true then is
asked some seconds later.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st

LAST = 350
"""The last moment at which anything goes wrong by itself."""

DURABLE = ("room:a", "room:b", "short:c")
PLAIN = ("plain:d",)
TOPICS = (*DURABLE, *PLAIN)


@dataclass(frozen=True)
class Step:
    """Something that happens at a time. `of` picks who: a client or a node, whichever the step is about."""

    at: int
    of: int


# --- what clients do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publish(Step):
    """Publish `count` messages one after the other; with keys they are repeated until they are acknowledged."""

    topic: str
    count: int = 1
    keyed: bool = True
    echo: bool = True


@dataclass(frozen=True)
class Subscribe(Step):
    """Want a topic: from the position the client knows, else from `since`."""

    topic: str
    since: str = "latest"


@dataclass(frozen=True)
class Unsubscribe(Step):
    """Want it no longer."""

    topic: str


@dataclass(frozen=True)
class Read(Step):
    """Ask for a history."""

    topic: str


@dataclass(frozen=True)
class Move(Step):
    """Leave without a word, and come back to the node `to`; `fresh`: as a stranger, with positions but no session."""

    to: int
    fresh: bool = False


# --- what goes wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault(Step):
    """Something goes wrong for `tenths`."""

    tenths: int = 0


@dataclass(frozen=True)
class CutRedis(Fault):
    """The node's connections to Redis (`which` 1: one of them) are cut; `silent`: the node does not see it."""

    silent: bool = False
    which: int = 0


@dataclass(frozen=True)
class ClogRedis(Fault):
    """Nothing passes between the node and Redis: a partition that loses nothing."""


@dataclass(frozen=True)
class SlowRedis(Fault):
    """What passes between the node and Redis takes 50 ms to half a second."""

    delay_ms: int = 50


@dataclass(frozen=True)
class CutClient(Fault):
    """The client's connection is cut, seen by both, the client (1) or the node (2) alone."""

    seen_by: int = 0


@dataclass(frozen=True)
class ClogClient(Fault):
    """Nothing passes between the client and any node."""


@dataclass(frozen=True)
class KillNode(Fault):
    """The node's process is killed, and started again."""


@dataclass(frozen=True)
class StopNode(Fault):
    """The node is stopped in order, and started again."""


@dataclass(frozen=True)
class KillRedis(Fault):
    """Redis is killed, and started again with all it acknowledged."""


@dataclass(frozen=True)
class StallRedis(Fault):
    """Redis does not run for a while."""


@dataclass(frozen=True)
class FailOver(Fault):
    """Redis dies, and its replica takes over, which had heard nothing for `lag` tenths."""

    lag: int = 0


@dataclass(frozen=True)
class DropClients(Fault):
    """CLIENT KILL: Redis closes subscribers (1), others (2), or all connections (0)."""

    which: int = 0


@dataclass(frozen=True)
class FlushScripts(Fault):
    """Redis forgets its scripts."""


@dataclass(frozen=True)
class ClientPlan:
    """A client: whether it resumes by the positions it knows or by what it acknowledged, and how it encodes."""

    acknowledges: bool = False
    encoding: str = "json"
    topics: tuple[str, ...] = TOPICS


@dataclass(frozen=True)
class Plan:
    """All of it. `skews_s` are the errors of the nodes' clocks of day."""

    seed: int = 0
    skews_s: tuple[float, ...] = (0.0, 0.0)
    clients: tuple[ClientPlan, ...] = (ClientPlan(), ClientPlan())
    steps: tuple[Step, ...] = field(default=())

    @property
    def may_lose(self) -> bool:
        """Whether a failover happens: Redis may then have lost what it acknowledged, and says so by a new epoch."""
        return any(isinstance(step, FailOver) for step in self.steps)


_times = st.integers(0, LAST)
_who = st.integers(0, 3)
_topics = st.sampled_from(TOPICS)
_spans = st.sampled_from([1, 3, 8, 15, 30, 60, 120])

_doings = st.one_of(
    st.builds(Publish, _times, _who, _topics, st.integers(1, 4), st.just(True), st.booleans()),
    st.builds(Publish, _times, _who, _topics, st.integers(1, 4)),
    st.builds(Publish, _times, _who, _topics, st.integers(1, 3), st.just(False)),
    st.builds(Publish, _times, _who, _topics, st.integers(5, 9)),
    st.builds(Subscribe, _times, _who, _topics, st.sampled_from(["latest", "earliest"])),
    st.builds(Unsubscribe, _times, _who, _topics),
    st.builds(Read, _times, _who, st.sampled_from(DURABLE)),
    st.builds(Move, _times, _who, st.integers(0, 2), st.booleans()),
)
_faults = st.one_of(
    st.builds(CutRedis, _times, _who, st.just(0), st.booleans(), st.integers(0, 1)),
    st.builds(CutRedis, _times, _who, st.just(0), st.booleans(), st.just(1)),
    st.builds(ClogRedis, _times, _who, _spans),
    st.builds(SlowRedis, _times, _who, _spans, st.sampled_from([50, 200, 500])),
    st.builds(CutClient, _times, _who, st.just(0), st.integers(0, 2)),
    st.builds(ClogClient, _times, _who, _spans),
    st.builds(KillNode, _times, _who, _spans),
    st.builds(StopNode, _times, _who, _spans),
    st.builds(KillRedis, _times, st.just(0), _spans),
    st.builds(StallRedis, _times, st.just(0), _spans),
    st.builds(FailOver, _times, st.just(0), _spans, st.sampled_from([0, 0, 5, 20])),
    st.builds(DropClients, _times, st.just(0), st.just(0), st.integers(0, 2)),
    st.builds(FlushScripts, _times, st.just(0)),
)
_client_plans = st.builds(
    ClientPlan,
    st.booleans(),
    st.sampled_from(["json", "msgpack"]),
    st.lists(_topics, unique=True, min_size=1).map(lambda topics: tuple(sorted(topics))),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a simulated minute."""
    nodes = draw(st.integers(1, 3))
    steps = [*draw(st.lists(_doings, min_size=4, max_size=20)), *draw(st.lists(_faults, max_size=6))]
    return Plan(
        seed=draw(st.integers(0, 2**32 - 1)),
        skews_s=tuple(draw(st.sampled_from([0.0, 0.0, 3600.0, -86_400.0])) for _ in range(nodes)),
        clients=tuple(draw(st.lists(_client_plans, min_size=1, max_size=4))),
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )
