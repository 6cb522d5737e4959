"""Plans that are sharp: each is whole by itself, and falls to one mutation, with almost any seed.

Two clients of two nodes are each on the other's node: when they dial first, nobody listens yet.
"""

from tests.simulation.plan import (
    ClientPlan,
    ClogRedis,
    CutRedis,
    FailOver,
    KillNode,
    Move,
    Plan,
    Publish,
    SlowRedis,
    StallRedis,
    Subscribe,
    Unsubscribe,
)

CUT_OFF_IN_A_BURST = Plan(
    clients=(ClientPlan(topics=("room:a",)), ClientPlan(topics=("room:a",))),
    steps=(
        CutRedis(10_000, 1, which=1),
        Publish(10_001, 1, "room:a", 8, pause_ms=150),
        SlowRedis(10_050, 1, tenths=30, delay_ms=50),
    ),
)
"""A node misses messages, and others arrive while it reads what it missed."""

SHARP = {
    "acknowledge before append": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(FailOver(604, 3, tenths=12, split=2), Publish(607, 1, topic="short:c", pause_ms=150)),
    ),
    "skip the recheck after a reconnect": Plan(
        clients=(ClientPlan(topics=("room:a",)), ClientPlan(topics=("room:a",))),
        steps=(CutRedis(10_000, 1, which=1), Publish(10_001, 1, "room:a")),
    ),
    "forget the key": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)),),
        steps=(Publish(600, 3, topic="room:a", count=5), Move(620, 0, to=1)),
    ),
    "forget to tell the gap": Plan(
        skews_s=(0.0,), clients=(ClientPlan(topics=("room:b",)),), steps=(FailOver(604, 3, tenths=12, split=2),)
    ),
    "resubscribe nothing after a reconnect": Plan(
        skews_s=(0.0,), clients=(ClientPlan(topics=("room:b",)),), steps=(FailOver(604, 3, tenths=12, split=2),)
    ),
    "claim that all was recovered": Plan(
        skews_s=(0.0,), clients=(ClientPlan(topics=("room:b",)),), steps=(FailOver(604, 3, tenths=12, split=2),)
    ),
    "drop the reply slot of a cancelled caller": Plan(
        clients=(ClientPlan(topics=("room:a",)),),
        steps=(
            SlowRedis(14_500, 1, tenths=30, delay_ms=150),
            Publish(14_502, 0, "room:a", pause_ms=300),
            Move(14_521, 0, to=0),
        ),
    ),
    "keep duplicates by position": CUT_OFF_IN_A_BURST,
    "do not hold what is behind a hole": CUT_OFF_IN_A_BURST,
    "treat a new epoch as continuing": Plan(
        clients=(ClientPlan(topics=("room:a",)), ClientPlan(topics=("plain:d",))),
        steps=(
            FailOver(10_000, 0, tenths=1, lag=1),
            Publish(10_010, 1, "room:a", 2),
            SlowRedis(10_050, 1, tenths=60, delay_ms=150),
            Publish(10_200, 1, "room:a", 4),
        ),
    ),
    "take a new epoch for the old one": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)),),
        steps=(FailOver(10_000, 0, tenths=1, lag=1), Publish(10_000, 0, "room:a", 8)),
    ),
    "forget the gap of a resumed session": Plan(
        skews_s=(0.0, 0.0, 0.0),
        clients=(ClientPlan(topics=("plain:d",)), ClientPlan(topics=("short:c",)), ClientPlan(topics=("short:c",))),
        steps=(
            FailOver(24501, 0, tenths=30),
            Publish(24503, 1, topic="short:c", pause_ms=150),
            KillNode(24650, 0, tenths=3),
        ),
    ),
    "do not buffer between history and live": Plan(
        seed=1,
        clients=(ClientPlan(topics=("room:b",)), ClientPlan(topics=("room:b",)), ClientPlan(topics=("room:a",))),
        steps=tuple(
            step
            for at in (10_000, 16_000, 22_000)
            for step in (
                SlowRedis(at, 1, tenths=30, delay_ms=150),
                Subscribe(at, 0, "room:a"),
                Publish(at + 150, 1, "room:a", 8, pause_ms=30),
                Unsubscribe(at + 4_000, 0, "room:a"),
            )
        ),
    ),
    "let the old node remove a moved member": Plan(
        clients=(ClientPlan(topics=("room:b",)),), steps=(Move(5350, 0, to=0, silent=True),)
    ),
    "do not probe the feed": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("short:c",)),),
        steps=(FailOver(16600, 3, tenths=30, lag=5, split=2),),
    ),
    "save no session": Plan(skews_s=(0.0,), clients=(ClientPlan(topics=("room:a",)),)),
    "tell nobody who is there": Plan(skews_s=(0.0,), clients=(ClientPlan(topics=("room:b",)),)),
    "never write again what could not be written": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)),),
        steps=(ClogRedis(14101, 1, tenths=60), Move(14103, 3, to=1, fresh=True)),
    ),
    "wait for a stalled server": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("plain:d",)),),
        steps=(ClogRedis(10000, 0, tenths=120), Publish(10001, 1, topic="room:a")),
    ),
    "count the members of dead nodes": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(Move(20000, 0, to=1, fresh=True), KillNode(20000, 1, tenths=1)),
    ),
    "deliver the own echo twice": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("plain:d",)),),
        steps=(Publish(5000, 0, topic="plain:d"), StallRedis(10150, 0, tenths=9), Publish(10151, 0, topic="plain:d")),
    ),
}
