"""What the simulation has found and nobody has mended yet. A line leaves when its plan in `FOUND` is whole.

The other simulations do not complain of these: `simulate(plan, tolerated=KNOWN)`.
"""

from tests.simulation.oracle import DELAYED, EARLY, GHOSTS, REUSED
from tests.simulation.plan import (
    ClientPlan,
    CutRedis,
    FailOver,
    KillRedis,
    Plan,
    Publish,
    SlowRedis,
    Subscribe,
    Unsubscribe,
)

KNOWN = frozenset({GHOSTS, REUSED, DELAYED, EARLY})

FOUND = {
    GHOSTS: Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(FailOver(20_000, 0, lag=20), Unsubscribe(20_500, 0, "room:b")),
    ),
    REUSED: Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("plain:d",)), ClientPlan(topics=("plain:d",))),
        steps=(
            Publish(11_000, 0, "room:a", 2),
            FailOver(12_500, 0, lag=5, tenths=12),
            Publish(12_600, 0, "room:a", 2),
            KillRedis(15_700, 0, tenths=7),
            Publish(17_000, 1, "room:a", 2),
        ),
    ),
    DELAYED: Plan(
        seed=4294967294,
        clients=(ClientPlan(topics=("room:b", "short:c")), ClientPlan(topics=("plain:d", "short:c"))),
        steps=(
            CutRedis(9_420, 2, silent=True),
            FailOver(9_502, 0, tenths=12, lag=5, split=1),
            Publish(9_510, 1, "room:a", pause_ms=150),
        ),
        durable=False,
    ),
    EARLY: Plan(
        seed=379218,
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)), ClientPlan(topics=("room:a",))),
        steps=(
            SlowRedis(11_500, 0, tenths=30, delay_ms=50),
            Publish(11_500, 0, "plain:d", 2, pause_ms=100),
            Subscribe(11_650, 1, "plain:d"),
        ),
    ),
}
