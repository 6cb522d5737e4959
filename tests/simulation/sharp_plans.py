"""Plans that are sharp: each is whole by itself, and falls to one mutation. Found by chance, shrunk, kept."""

from tests.simulation.plan import (
    ClientPlan,
    ClogRedis,
    FailOver,
    KillNode,
    Move,
    Plan,
    Publish,
    SlowRedis,
    StallRedis,
    Subscribe,
)

SHARP = {
    "acknowledge before append": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:b",)),),
        steps=(FailOver(604, 3, tenths=12, split=2), Publish(607, 1, topic="short:c", pause_ms=150)),
    ),
    "skip the recheck after a reconnect": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("short:c",)),),
        steps=(FailOver(30003, 3, tenths=7, lag=1), Publish(30010, 0, topic="short:c", pause_ms=5)),
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
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("room:a",)),),
        steps=(
            SlowRedis(600, 0, tenths=15),
            Publish(600, 0, topic="room:a"),
            Publish(600, 1, topic="room:a"),
            Publish(600, 2, topic="room:a"),
            Publish(600, 3, topic="room:a"),
            Move(620, 0, to=1),
        ),
    ),
    "keep duplicates by position": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("short:c",)),),
        steps=(Publish(30000, 1, topic="short:c", count=4, pause_ms=30), FailOver(30003, 3, tenths=7, lag=1)),
    ),
    "do not hold what is behind a hole": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("short:c",)),),
        steps=(Publish(30000, 1, topic="short:c", count=4, pause_ms=30), FailOver(30003, 3, tenths=7, lag=1)),
    ),
    "treat a new epoch as continuing": Plan(
        skews_s=(0.0,),
        clients=(ClientPlan(topics=("short:c",)),),
        steps=(Publish(30000, 1, topic="short:c", count=4, pause_ms=30), FailOver(30003, 3, tenths=7, lag=1)),
    ),
    "take a new epoch for the old one": Plan(
        skews_s=(0.0,), clients=(ClientPlan(topics=("room:b",)),), steps=(FailOver(604, 3, tenths=12, split=2),)
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
        seed=187,
        skews_s=(0.0,),
        clients=(
            ClientPlan(encoding="msgpack", topics=("short:c",)),
            ClientPlan(topics=("short:c",)),
            ClientPlan(topics=("plain:d",)),
            ClientPlan(topics=("short:c",)),
        ),
        steps=(
            SlowRedis(600, 3, tenths=30, delay_ms=20),
            Publish(600, 4, topic="room:a", pause_ms=5),
            Subscribe(600, 3, topic="room:a"),
            Publish(601, 1, topic="room:a"),
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
