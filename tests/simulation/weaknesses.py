"""What the simulation has found and nobody has mended yet. A line leaves when its plan in `FOUND` is whole.

The other simulations do not complain of these: `simulate(plan, tolerated=KNOWN)`.
"""

from tests.simulation.cluster import GHOSTS, REUSED
from tests.simulation.plan import ClientPlan, FailOver, KillRedis, Plan, Publish, Unsubscribe

KNOWN = frozenset({GHOSTS, REUSED})

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
}
