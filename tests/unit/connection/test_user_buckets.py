"""The buckets that all connections of a user share."""

from notifyd.connection.context import UserBuckets
from notifyd.settings import Rate

SLOW = Rate(rate=0.001, burst=1)


def test_connections_of_a_user_share_one_bucket_while_there_are_any() -> None:
    buckets = UserBuckets(SLOW)
    first, second = buckets.acquire("ann", 0.0), buckets.acquire("ann", 0.0)
    assert first is not None
    assert first is second
    assert buckets.acquire("bob", 0.0) is not first
    buckets.release("ann", first)
    assert buckets.acquire("ann", 0.0) is first
    buckets.release("ann", first)
    buckets.release("ann", first)
    assert buckets.acquire("ann", 0.0) is not first


def test_strangers_share_nothing() -> None:
    assert UserBuckets(SLOW).acquire("", 0.0) is None


def test_after_a_reload_old_connections_let_go_of_their_own_bucket_only() -> None:
    for before in (None, SLOW):
        buckets = UserBuckets(before)
        old = buckets.acquire("ann", 0.0)
        buckets.reload(Rate(rate=1, burst=5))
        new = buckets.acquire("ann", 0.0)
        assert new is not None
        assert new is not old
        buckets.release("ann", old)
        assert buckets.acquire("ann", 0.0) is new
    buckets.reload(None)
    assert buckets.acquire("ann", 0.0) is None
    buckets.release("ann", new)
    assert not buckets._buckets
