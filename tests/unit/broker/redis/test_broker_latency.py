"""The latency of a message over a real Redis: by this node's own clock where it was given it, else by Redis's time."""

import time

import pytest

from notifyd.broker.redis import broker
from notifyd.clock import Clock
from tests.kit.memory_node import policy
from tests.kit.redis_hub import open_redis_hub
from tests.kit.until import until

HOUR_S = 3600.0


def an_hour_ahead() -> Clock:
    return Clock(unix_s=lambda: time.time() + HOUR_S)


@pytest.mark.parametrize("history", [1000, 0])
async def test_the_clocks_of_others_count_only_for_their_messages(
    history: int, redis_url: str, redis_prefix: str
) -> None:
    rules = (policy("a:*", history=history),)
    async with (
        open_redis_hub(redis_url, redis_prefix, "n1", *rules) as one,
        open_redis_hub(redis_url, redis_prefix, "n2", *rules) as two,
    ):
        one.hub.fanout._clock = an_hour_ahead()
        ada = one.subscriber("ada")
        await ada.subscribe("a:b")
        await one.hub.publish("a:b", "own")
        await until(lambda: ada.data() == ["own"])
        await two.hub.publish("a:b", "other's")
        await until(lambda: ada.data() == ["own", "other's"])
        own_s, others_s = one.events.observed("delivery_latency_seconds")
        assert 0 < own_s < HOUR_S / 2 < others_s
        assert len(one.broker._received_s) == len(two.broker._received_s) == 0
        one.assert_well()


async def test_a_known_key_brings_nothing_back_to_wait_for(redis_url: str, redis_prefix: str) -> None:
    async with open_redis_hub(redis_url, redis_prefix, "n1", policy("a:*", history=10)) as one:
        ada = one.subscriber("ada")
        await ada.subscribe("a:b")
        for _ in range(3):
            await one.hub.publish("a:b", "once", key="k")
        await until(lambda: ada.data() == ["once"])
        assert one.broker._received_s == {}


async def test_what_never_comes_back_is_forgotten(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "UNDER_WAY", 3)
    async with open_redis_hub(redis_url, redis_prefix) as one:
        ada = one.subscriber("ada")
        await ada.subscribe("a:b")
        one.hub.broker._subscriber.on_messages = lambda _messages: None  # type: ignore[attr-defined]
        for number in range(10):
            await one.hub.publish("a:b", number)
        assert len(one.broker._received_s) == 3
