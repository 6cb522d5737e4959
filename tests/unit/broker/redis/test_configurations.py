"""Versions of the configuration: nodes that are told, that were away, and a store that has lost some, over one server.

The promises that hold for any broker are in test_conformance_clients.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from redis.crc import key_slot
from trio.testing import MockClock

from notifyd.broker.base import ConfigurationVersion
from notifyd.broker.redis.configurations import READ_AGAIN_S, RedisConfigurations
from notifyd.broker.redis.keys import Names
from notifyd.broker.redis.nodes import HEARTBEAT_S
from notifyd.broker.redis.scripts import Script
from notifyd.errors import BrokerUnavailable
from tests.recorded_events import RecordedEvents
from tests.unit.broker.conformance import Received


def version(number: int, author: str = "ada", **overlay: Any) -> ConfigurationVersion:
    return ConfigurationVersion(number, number, author, overlay)


def _stored(one: ConfigurationVersion) -> bytes:
    return msgspec.msgpack.encode(one)


class Store:
    """Versions as the two scripts keep them; `away` makes every call fail, `answers` says whether after its effect."""

    sharded = False

    def __init__(self) -> None:
        self.versions: dict[float, bytes] = {}
        self.away = False
        self.answers = True
        self.reads_s: list[float] = []
        self.told: list[RedisConfigurations] = []

    async def evaluate(self, script: Script, keys: list[str], arguments: tuple[Any, ...]) -> Any:
        await trio.sleep(0.001)
        if self.away:
            raise BrokerUnavailable("away")
        if script.name == "configurations":
            self.reads_s.append(trio.current_time())
            newest = sorted(self.versions, reverse=True)[: arguments[0]]
            return [part for number in newest for part in (self.versions[number], b"%.17g" % number)]
        after, number, record = arguments[:3]
        if max(self.versions, default=0) != after:
            return 0
        self.versions[number] = record
        for node in self.told:
            node.missed()
        if not self.answers:
            raise BrokerUnavailable("the answer did not come")
        return 1


class Following:
    """A node that follows a store."""

    def __init__(self, store: Store) -> None:
        self.got = Received()
        self.events = RecordedEvents()
        self.part = RedisConfigurations(store, Names("p"), "me", self.got, self.events)  # type: ignore[arg-type]


@asynccontextmanager
async def following(store: Store, *, hears: bool = True) -> AsyncIterator[Following]:
    node = Following(store)
    if hears:
        store.told.append(node.part)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.part.run)
        yield node
        nursery.cancel_scope.cancel()


async def test_who_is_told_reads_it_at_once_and_who_did_not_hear_with_the_next_heartbeat(
    autojump_clock: MockClock,
) -> None:
    store = Store()
    async with following(store) as one, following(store) as near, following(store, hears=False) as far:
        await trio.sleep(1)
        assert await one.part.add(version(1))
        assert one.got.configured == [version(1)]
        await trio.sleep(0.1)
        assert near.got.configured == [version(1)]
        assert far.got.configured == []
        await trio.sleep(HEARTBEAT_S)
        assert far.got.configured == [version(1)]
        await trio.sleep(10 * HEARTBEAT_S)
        assert [len(node.got.configured) for node in (one, near, far)] == [1, 1, 1], "each version is handed over once"


async def test_who_starts_later_has_it_before_it_is_informed(autojump_clock: MockClock) -> None:
    store = Store()
    async with following(store) as one:
        await one.part.add(version(1))
        await one.part.add(version(2))
    async with following(store) as late:
        assert not late.part.is_informed
        await trio.sleep(0.1)
        assert late.part.is_informed
        assert late.got.configured == [version(2)]


async def test_who_was_away_catches_up(autojump_clock: MockClock) -> None:
    store = Store()
    store.away = True
    async with following(store) as node:
        await trio.sleep(60)
        assert not node.part.is_informed
        with pytest.raises(BrokerUnavailable):
            await node.part.add(version(1))
        store.away = False
        store.versions[1] = _stored(version(1))
        await trio.sleep(READ_AGAIN_S + 0.1)
        assert node.got.configured == [version(1)]


async def test_an_answer_that_was_lost_is_made_up_for(autojump_clock: MockClock) -> None:
    store = Store()
    async with following(store, hears=False) as node:
        await trio.sleep(1)
        store.answers = False
        with pytest.raises(BrokerUnavailable):
            await node.part.add(version(1))
        assert node.got.configured == []
        await trio.sleep(0.1)
        assert node.got.configured == [version(1)]


async def test_what_the_store_has_lost_is_put_back_and_what_is_newer_holds(autojump_clock: MockClock) -> None:
    store = Store()
    async with following(store) as one, following(store) as two:
        for number in (1, 2, 3):
            await one.part.add(version(number))
        await trio.sleep(1)
        del store.versions[3], store.versions[2]  # a replica that lagged is primary now
        for node in (one, two):
            node.part.missed()
        await trio.sleep(1)
        assert sorted(store.versions) == [1, 3]
        store.versions.clear()  # it restarted without its data
        await trio.sleep(HEARTBEAT_S + 1)
        assert store.versions == {3: _stored(version(3))}
        assert one.got.configured[-1] == two.got.configured[-1] == version(3)
        assert one.events.logged("configuration_restored") or two.events.logged("configuration_restored")
        assert await two.part.add(version(4))
        await trio.sleep(1)
        assert one.got.configured[-1] == version(4)


async def test_of_two_with_the_same_number_the_stores_holds(autojump_clock: MockClock) -> None:
    store = Store()
    async with following(store) as node:
        await node.part.add(version(1, "ada"))
        store.versions[1] = _stored(version(1, "bob"))  # made by another node after a failover took ours
        await trio.sleep(HEARTBEAT_S + 1)
        assert node.got.configured == [version(1, "ada"), version(1, "bob")]


@pytest.mark.parametrize("record", [b"", b"\xc1", b"\x80", _stored(version(1))[:-3], b"\x91" * 5000])
async def test_a_record_of_another_version_of_notifyd_is_left_alone(record: bytes, autojump_clock: MockClock) -> None:
    store = Store()
    async with following(store) as node:
        await node.part.add(version(1))
        store.versions[2] = record
        await trio.sleep(HEARTBEAT_S + 1)
        assert node.got.configured == [version(1)]
        assert node.events.logged("configuration_unreadable")[0] == {"version": 2}
        assert store.versions[2] == record
        assert await node.part.newest(10) == [version(1)]


POISON = {
    "a key that is no text": {"limits": {b"payload": 1}},
    "no key at all": {"limits": {None: 1}},
    "not a number": {"limits": {"messages": {"rate": float("nan")}}},
    "an extension": {"limits": {"payload": msgspec.msgpack.Ext(5, b"")}},
}


@pytest.mark.parametrize("overlay", POISON.values(), ids=POISON)
async def test_what_no_patch_could_have_made_is_not_handed_over(
    overlay: dict[str, Any], autojump_clock: MockClock
) -> None:
    store = Store()
    async with following(store) as node:
        await node.part.add(version(1))
        store.versions[2] = msgspec.msgpack.encode({"version": 2, "time": 2, "author": "eve", "overlay": overlay})
        await trio.sleep(HEARTBEAT_S + 1)
        assert node.got.configured == [version(1)]
        assert node.events.logged("configuration_unreadable")[0] == {"version": 2}
        assert await node.part.newest(10) == [version(1)]


@pytest.mark.parametrize("number", [1.5, 7, 1e20, float("inf")])
async def test_a_record_under_another_number_than_its_own_is_left_alone(
    number: float, autojump_clock: MockClock
) -> None:
    store = Store()
    async with following(store) as node:
        await node.part.add(version(1))
        store.versions[number] = _stored(version(2))
        await trio.sleep(HEARTBEAT_S + 1)
        assert node.got.configured == [version(1)]
        assert node.events.logged("configuration_unreadable")
        assert await node.part.newest(10) == [version(1)]


@pytest.mark.parametrize("number", [0.5, float("-inf")])
async def test_below_all_versions_it_does_not_keep_the_known_one_from_being_put_back(
    number: float, autojump_clock: MockClock
) -> None:
    store = Store()
    async with following(store) as node:
        await node.part.add(version(1))
        store.versions = {number: b""}
        await trio.sleep(HEARTBEAT_S + 1)
        assert store.versions[1] == _stored(version(1))


def test_the_channel_that_tells_of_it_is_where_the_versions_are() -> None:
    for prefix in ("p", "{p}", "a{b}c", "%"):
        names = Names(prefix)
        assert key_slot(names.configurations().encode()) == key_slot(names.control().encode())
