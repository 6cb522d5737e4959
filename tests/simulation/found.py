"""Plans that once broke a promise, or what was taken for one, by what they found: they are to stay whole."""

from tests.simulation.plan import (
    ClientPlan,
    CutRedis,
    FailOver,
    KillRedis,
    Move,
    Plan,
    Publish,
    SlowRedis,
    Subscribe,
    Unsubscribe,
)

FOUND = {
    "a member that left just before a failover stays": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(FailOver(20_000, 0, lag=20), Unsubscribe(20_500, 0, "room:b")),
    ),
    "an offset lost by a failover is given again after a restart, in the same epoch": Plan(
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
    "a node whose commands reach the new server last misses messages until the next one comes": Plan(
        seed=4294967294,
        clients=(ClientPlan(topics=("room:b", "short:c")), ClientPlan(topics=("plain:d", "short:c"))),
        steps=(
            CutRedis(9_420, 2, silent=True),
            FailOver(9_502, 0, tenths=12, lag=5, split=1),
            Publish(9_510, 1, "room:a", pause_ms=150),
        ),
        durable=False,
    ),
    "a message without history comes before the subscription is answered": Plan(
        seed=379218,
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)), ClientPlan(topics=("room:a",))),
        steps=(
            SlowRedis(11_500, 0, tenths=30, delay_ms=50),
            Publish(11_500, 0, "plain:d", 2, pause_ms=100),
            Subscribe(11_650, 1, "plain:d"),
        ),
    ),
    "a session resumed while it is saved or restored forgets what was acknowledged": Plan(
        seed=890,
        skews_s=(0.0,),
        clients=(ClientPlan(acknowledges=True, topics=("room:a", "room:b")),),
        steps=(
            Publish(8_400, 0, "room:b", 6),
            Move(8_572, 0, to=1),
            SlowRedis(20_200, 0, tenths=15, delay_ms=150),
            Publish(20_350, 0, "short:c", 5),
            Move(20_421, 0, to=4, silent=True),
            SlowRedis(26_200, 0, tenths=15, delay_ms=50),
            Publish(26_207, 0, "room:b", pause_ms=300),
            Publish(26_220, 0, "room:b"),
            Move(26_326, 0, to=1),
        ),
    ),
    "what was accepted between two crashes of one kind is lost by the first": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(
            KillRedis(8_600, 0, tenths=12, lag=2),
            Publish(8_605, 0, "room:b"),
            Move(8_606, 0, to=0, silent=True),
            KillRedis(8_620, 0, tenths=9, lag=2),
        ),
        durable=False,
    ),
    "an acknowledgement that was not saved before Redis died does not count on another node": Plan(
        seed=432,
        skews_s=(0.0, 0.0, 0.0),
        clients=(ClientPlan(topics=("room:b",)), ClientPlan(acknowledges=True, topics=("short:c",))),
        steps=(
            Publish(600, 3, "short:c", 4, pause_ms=30),
            Publish(18_700, 1, "short:c", pause_ms=5),
            KillRedis(18_704, 0, tenths=30, lag=2),
            Move(21_547, 1, to=2, silent=True),
        ),
    ),
}
