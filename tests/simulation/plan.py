"""A simulated minute as data: who takes part, what they do, and what goes wrong when. It is drawn, shrunk and replayed.

`Step.at` is in milliseconds from the beginning, in virtual time; how long a fault lasts is in tenths of a second. All
faults are over at `LAST`; what has to be true then is asked some seconds later.
"""

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

LAST = 35_000
"""The last moment at which anything goes wrong by itself."""

SHORT = ("short:c",)
DURABLE = ("room:a", "room:b", *SHORT)
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
    """Publish `count` messages, with a pause behind each; with keys they are repeated until they are acknowledged."""

    topic: str
    count: int = 1
    keyed: bool = True
    echo: bool = True
    pause_ms: int = 0


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
    """Leave, and come back to the node `to`; `fresh`: with positions but no session; `silent`: unseen by the node."""

    to: int
    fresh: bool = False
    silent: bool = False


# --- what goes wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault(Step):
    """Something goes wrong for `tenths`."""

    tenths: int = 0


@dataclass(frozen=True)
class CutRedis(Fault):
    """The node's connections to Redis (1: that for messages, 2: that for commands) are cut, unseen where `silent`."""

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
    """Redis is killed, and started again: with all it had, or, not being durable, without its last `lag` tenths."""

    lag: int = 0


@dataclass(frozen=True)
class StallRedis(Fault):
    """Redis does not run for a while."""


@dataclass(frozen=True)
class FailOver(Fault):
    """Redis dies, and its replica takes over, which had heard nothing for `lag` tenths.

    `split`: it does not die but goes on alone. All connections of one node (1), or that for messages (2), stay with it.
    """

    lag: int = 0
    split: int = 0


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
    """All of it. `skews_s` are the errors of the nodes' clocks of day; a `durable` Redis loses nothing by a restart."""

    seed: int = 0
    skews_s: tuple[float, ...] = (0.0, 0.0)
    clients: tuple[ClientPlan, ...] = (ClientPlan(), ClientPlan())
    steps: tuple[Step, ...] = field(default=())
    durable: bool = True

    @property
    def may_lose(self) -> bool:
        """Whether Redis may lose what it acknowledged; it is told by a new epoch."""
        kinds = (FailOver,) if self.durable else (FailOver, KillRedis)
        return any(isinstance(step, kinds) for step in self.steps)

    def is_calm(self, since_s: float, until_s: float) -> bool:
        """Whether every node reaches Redis in that time: nothing goes wrong between them, or is still got over."""
        return not any(
            step.at / 1000 <= until_s and since_s <= step.at / 1000 + _lasts_s(step) + GOT_OVER_S
            for step in self.steps
            if isinstance(step, REDIS_FAULTS)
        )


GOT_OVER_S = 5.0
"""So long may a node need to notice that it lost Redis, or to find it again."""

REDIS_FAULTS = (CutRedis, ClogRedis, SlowRedis, KillRedis, StallRedis, FailOver, DropClients)


def _lasts_s(fault: Fault) -> float:
    lag = fault.lag if isinstance(fault, KillRedis | FailOver) else 0
    return (lag + fault.tenths) / 10


INCIDENTS = 4
"""A minute has so few moments at which anything happens, lest things happen one by one: faults meet messages."""

_who = st.integers(0, 3)
_topics = st.sampled_from(TOPICS)
_tenths = st.sampled_from([1, 3, 7, 9, 12, 15, 30, 60, 120])
_after_ms = st.sampled_from([0, 0, 1, 2, 3, 4, 5, 7, 10, 20, 50, 150, 400])
_pauses_ms = st.sampled_from([0, 5, 30, 150, 300])
_counts = st.integers(1, 8)
_now = st.just(0)

_traffic = st.builds(Publish, _after_ms, _who, _topics, _counts, st.booleans(), st.booleans(), _pauses_ms)
_doings = st.one_of(
    _traffic,
    st.builds(Subscribe, _after_ms, _who, _topics, st.sampled_from(["latest", "earliest"])),
    st.builds(Unsubscribe, _after_ms, _who, _topics),
    st.builds(Read, _after_ms, _who, st.sampled_from(DURABLE)),
    st.builds(Move, _after_ms, _who, st.integers(0, 2), st.booleans(), st.booleans()),
    st.builds(Move, _after_ms, _who, st.integers(0, 2), st.just(False), st.booleans()),
)
_faults = st.one_of(
    st.builds(CutRedis, _after_ms, _who, _now, st.booleans(), st.integers(0, 2)),
    st.builds(ClogRedis, _after_ms, _who, _tenths),
    st.builds(SlowRedis, _after_ms, _who, _tenths, st.sampled_from([50, 200, 350])),
    st.builds(CutClient, _after_ms, _who, _now, st.integers(0, 2)),
    st.builds(ClogClient, _after_ms, _who, _tenths),
    st.builds(KillNode, _after_ms, _who, _tenths),
    st.builds(StopNode, _after_ms, _who, _tenths),
    st.builds(KillRedis, _after_ms, _now, _tenths, st.sampled_from([0, 2, 10])),
    st.builds(StallRedis, _after_ms, _now, _tenths),
    st.builds(FailOver, _after_ms, _who, _tenths, st.sampled_from([0, 0, 1, 5, 20]), st.sampled_from([0, 0, 1, 2])),
    st.builds(DropClients, _after_ms, _now, _now, st.integers(0, 2)),
    st.builds(FlushScripts, _after_ms, _now),
)
_client_plans = st.builds(
    ClientPlan,
    st.booleans(),
    st.sampled_from(["json", "msgpack"]),
    st.lists(_topics, unique=True, min_size=1).map(lambda topics: tuple(sorted(topics))),
)
_bursts = st.builds(Publish, _after_ms, _who, _topics, st.integers(4, 8), st.just(True), st.just(True), _pauses_ms)


@st.composite
def _late_subscribers(draw: st.DrawFn) -> list[Step]:
    """Somebody subscribes over a slow link, while others publish: past and present meet."""
    who, topic = draw(_who), draw(_topics)
    comings = st.one_of(
        st.builds(Move, _after_ms, st.just(who), st.just(who), st.booleans(), st.booleans()),
        st.builds(Subscribe, _after_ms, st.just(who), st.just(topic), st.sampled_from(["latest", "earliest"])),
        st.builds(Unsubscribe, _after_ms, st.just(who), st.just(topic)),
    )
    return [
        SlowRedis(0, who, draw(st.sampled_from([7, 15, 30])), draw(st.sampled_from([20, 50, 100, 150]))),
        Publish(0, who + 1, topic, 8, pause_ms=draw(st.sampled_from([5, 30, 60, 100]))),
        *draw(st.lists(comings, min_size=1, max_size=3)),
        *draw(st.lists(_bursts, max_size=1)),
    ]


@st.composite
def _takeovers(draw: st.DrawFn) -> list[Step]:
    """Somebody is taken over by another node while it and others ask much of a slow link."""
    who = draw(_who)
    return [
        SlowRedis(0, who, draw(st.sampled_from([15, 30])), draw(st.sampled_from([50, 100, 150]))),
        *(Publish(draw(_after_ms), number, draw(_topics), 6, pause_ms=draw(_pauses_ms)) for number in range(4)),
        Move(draw(st.integers(20, 600)), who, who + 1, silent=draw(st.booleans())),
        *draw(st.lists(_doings, max_size=2)),
    ]


@st.composite
def _disasters(draw: st.DrawFn) -> list[Step]:
    """Redis fails in the middle of a burst, and somebody comes or goes meanwhile."""
    kinds = [
        st.builds(FailOver, _after_ms, _who, _tenths, st.sampled_from([1, 5, 20]), _now),
        st.builds(FailOver, _after_ms, _who, _tenths, st.sampled_from([0, 5]), st.integers(1, 2)),
        st.builds(KillRedis, _after_ms, _now, _tenths, st.sampled_from([0, 2, 10])),
        st.builds(StallRedis, _after_ms, _now, st.sampled_from([7, 9, 12, 15])),
    ]
    return [
        draw(st.one_of(kinds)),
        *draw(st.lists(_bursts, min_size=2, max_size=4)),
        *draw(st.lists(_doings, max_size=3)),
    ]


@st.composite
def _anything(draw: st.DrawFn) -> list[Step]:
    """Messages, what clients do, and what goes wrong, each drawn by itself."""
    return [
        *draw(st.lists(_traffic, min_size=1, max_size=3)),
        *draw(st.lists(_doings, max_size=3)),
        *draw(st.lists(_faults, max_size=3)),
    ]


_moments = st.integers(5, LAST // 100 - 15)

THEMES: dict[str, st.SearchStrategy[list[Step]]] = {
    "anything": _anything(),
    "disasters": _disasters(),
    "late subscribers": _late_subscribers(),
    "takeovers": _takeovers(),
}


@st.composite
def plans(draw: st.DrawFn, *themes: str) -> Plan:
    """Draw a simulated minute: some incidents, each with messages and with what goes wrong meanwhile.

    `themes` are what incidents are about, all of THEMES where none is given.
    """
    incidents = st.tuples(_moments, st.one_of(*(THEMES[theme] for theme in themes or THEMES)))
    steps = [
        replace(step, at=moment * 100 + step.at)
        for moment, incident in draw(st.lists(incidents, min_size=1, max_size=INCIDENTS))
        for step in incident
    ]
    return Plan(
        seed=draw(st.integers(0, 2**32 - 1)),
        skews_s=tuple(draw(st.lists(st.sampled_from([0.0, 0.0, 3600.0, -86_400.0]), min_size=1, max_size=3))),
        clients=tuple(draw(st.lists(_client_plans, min_size=1, max_size=4))),
        steps=tuple(sorted(steps, key=lambda step: step.at)),
        durable=draw(st.booleans()),
    )
