"""What a history proves after a server was promoted, restarted, or moved a topic: never a continuity it cannot know.

Promotions are played through the ids that scripts are told, and done in earnest, with real servers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from notifyd.broker.base import Page, Retention
from notifyd.broker.redis.history import RedisHistory
from notifyd.broker.redis.keys import Names
from protocol.position import Position
from tests.kit.lua_server import LuaServer, lua_server
from tests.kit.redis_process import RedisServer, running_server
from tests.kit.redis_servers import cluster
from tests.kit.until import until

KEEP = Retention(1000, 600.0)


def history_on(server: LuaServer) -> RedisHistory:
    return RedisHistory(server, Names("test"), "n1")


async def publish(server: LuaServer, *values: int, key: str | None = None, topic: str = "a:b") -> list[Position]:
    history = history_on(server)
    answers = [
        await history.publish(topic, value, KEEP, key=key, sender=None, origin=None, sequence=value) for value in values
    ]
    return [answer.position for answer in answers if answer.position]


async def read(server: LuaServer, since: Position | None = None) -> Page:
    return await history_on(server).read("a:b", since or "earliest", 1000, KEEP)


def data_of(page: Page) -> list[int]:
    return [message.data for message in page.messages]


@pytest.fixture
def played(redis_server: RedisServer) -> Iterator[LuaServer]:
    with lua_server(redis_server.port) as server:
        yield server


def promote(server: LuaServer) -> None:
    """As a replica tells of itself that was promoted: its former id is the one it shared with its primary."""
    server.previous_replication_id = server.replication_id
    server.replication_id += "'"


# --- played -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_to_touch", ["publish", "read"])
async def test_a_promotion_begins_an_epoch_and_the_numbers_go_on(played: LuaServer, first_to_touch: str) -> None:
    old = await publish(played, 1, 2, 3)
    promote(played)
    if first_to_touch == "read":
        page = await read(played, old[-1])
        assert (data_of(page), page.continuous, page.base) == ([], False, 3)
        assert page.top is not None
        assert page.top.offset == 3
    new = await publish(played, 4, 5)
    assert [position.offset for position in new] == [4, 5]
    assert new[0].epoch == new[1].epoch != old[0].epoch
    for position in old:
        page = await read(played, position)
        assert (data_of(page), page.continuous, page.top, page.base) == ([], False, new[-1], 3)
    assert data_of(await read(played, new[0])) == [5]


async def test_what_was_kept_stays_and_is_read_under_the_new_epoch(played: LuaServer) -> None:
    await publish(played, 1, 2, 3)
    promote(played)
    [new] = await publish(played, 4)
    page = await read(played)
    assert (data_of(page), page.base) == ([1, 2, 3, 4], 3)
    assert [message.position for message in page.messages] == [Position(new.epoch, offset) for offset in (1, 2, 3, 4)]
    assert page.continuous  # nothing of this epoch was trimmed
    assert data_of(await read(played, Position(new.epoch, 2))) == [3, 4]
    assert (await history_on(played).read("a:b", "earliest", 1000, Retention(2, 60.0))).continuous
    assert (await history_on(played).read("a:b", "earliest", 1000, Retention(1, 60.0))).continuous
    await publish(played, 5)
    assert not (await history_on(played).read("a:b", "earliest", 1000, Retention(1, 60.0))).continuous


async def test_one_promotion_begins_one_epoch(played: LuaServer) -> None:
    await publish(played, 1)
    promote(played)
    positions = await publish(played, 2, 3)
    positions += [page.top for page in [await read(played), await read(played)] if page.top]
    assert len({position.epoch for position in positions}) == 1
    promote(played)
    [again] = await publish(played, 4)
    assert again.offset == 4
    assert again.epoch != positions[0].epoch


async def test_a_topic_that_slept_through_two_promotions_begins_an_epoch_too(played: LuaServer) -> None:
    old = await publish(played, 1)
    promote(played)
    promote(played)
    assert not (await read(played, old[0])).continuous


async def test_a_known_key_is_answered_as_before_the_promotion(played: LuaServer) -> None:
    [first] = await publish(played, 1, key="k")
    promote(played)
    assert await publish(played, 2, key="k") == [first]
    assert data_of(await read(played)) == [1]


async def test_a_new_topic_on_a_promoted_server_has_one_epoch(played: LuaServer) -> None:
    promote(played)
    positions = await publish(played, 1, 2)
    assert (await read(played, positions[0])).continuous


async def test_whoever_knows_an_old_id_of_the_server_ends_no_epoch(redis_server: RedisServer) -> None:
    with lua_server(redis_server.port) as fresh, lua_server(redis_server.port) as stale:
        fresh.take_ids()
        stale.replication_id, stale.previous_replication_id = "f" * 40, "e" * 40
        positions: list[Position] = []
        for number in range(3):
            positions += await publish(fresh, number) + await publish(stale, number)
        assert [position.offset for position in positions] == [1, 2, 3, 4, 5, 6]
        assert len({position.epoch for position in positions}) == 1


async def test_a_position_that_the_history_has_not_come_to_ends_the_epoch_once(played: LuaServer) -> None:
    """Somebody was given offset 5, and the server has forgotten that: it may not give it again in the same epoch."""
    history = history_on(played)
    positions = await publish(played, 1, 2, 3)
    given = Position(positions[0].epoch, 5)
    for reached in (positions[2], Position("other", 5)):
        await history.renew("a:b", reached)
        assert (await read(played, positions[2])).continuous
    await history.renew("a:b", given)
    [new] = await publish(played, 4)
    assert new.offset == 4
    assert new.epoch != given.epoch
    await history.renew("a:b", given)
    page = await read(played, new)
    assert (data_of(page), page.continuous, page.base) == ([], True, 3)
    assert data_of(await read(played)) == [1, 2, 3, 4]


# --- in earnest -------------------------------------------------------------------------------------------------------


@contextmanager
def asked(server: RedisServer) -> Iterator[LuaServer]:
    """Ask a server as nodes do that connected just now. Its data stay."""
    asking = LuaServer(server.port)
    try:
        asking.take_ids()
        asking.beat(Names("test"))
        yield asking
    finally:
        asking.client.close()


@contextmanager
def replica_of(primary: RedisServer) -> Iterator[RedisServer]:
    primary.cli("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    with running_server(replicaof=f"127.0.0.1 {primary.port}") as replica:
        yield replica


async def until_replicated(primary: RedisServer, replica: RedisServer) -> None:
    with trio.fail_after(20):
        while replica.info("replication").get("master_link_status") != "up":  # noqa: ASYNC110  Redis does not tell
            await trio.sleep(0.02)
    offset = int(primary.info("replication")["master_repl_offset"])
    with trio.fail_after(20):
        while int(replica.info("replication")["slave_repl_offset"]) < offset:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_a_killed_server_that_had_written_everything_down_goes_on_where_it_was() -> None:
    with running_server(appendonly="yes", appendfsync="always") as server:
        with asked(server) as before:
            positions = await publish(before, 1, 2)
        server.restart()
        with asked(server) as after:
            assert after.replication_id != before.replication_id
            page = await read(after, positions[0])
            assert (data_of(page), page.continuous, page.top, page.base) == ([2], True, positions[1], 0)
            assert await publish(after, 3) == [Position(positions[0].epoch, 3)]


async def test_a_killed_server_that_writes_down_once_a_second_begins_an_epoch() -> None:
    """It may have put off what it had acknowledged: the kernel syncs, and its own write waits (aof_delayed_fsync)."""
    with running_server(appendonly="yes", appendfsync="everysec") as server:
        with asked(server) as before:
            positions = await publish(before, 1, 2)
        server.restart()
        with asked(server) as after:
            page = await read(after, positions[0])
            assert (data_of(page), page.continuous, page.base) == ([], False, 2)
            [new] = await publish(after, 3)
            assert (new.epoch, new.offset) != (positions[0].epoch, 3)


@pytest.mark.parametrize("had_replica", [False, True])
async def test_a_server_that_restarts_from_a_dump_begins_an_epoch(had_replica: bool) -> None:
    """Only with a replica does it tell its former id; without one its uptime gives it away."""
    with running_server(save="3600 100000") as server:
        if had_replica:
            with replica_of(server) as replica:
                await until_replicated(server, replica)
        with asked(server) as before:
            positions = await publish(before, 1, 2)
            await until(lambda: "rdb_bgsave_in_progress:0" in str(server.cli("INFO", "persistence")))  # for the replica
            server.cli("SAVE")
            positions += await publish(before, 3)
        server.restart()
        with asked(server) as after:
            assert bool(after.previous_replication_id) == had_replica
            page = await read(after, positions[1])
            assert (data_of(page), page.continuous, page.base) == ([], False, 2)
            new = await publish(after, 33, 44)
            assert [position.offset for position in new] == [3, 4]
            assert new[0].epoch != positions[0].epoch
            assert (await read(after, new[0])).continuous


async def test_a_promoted_replica_begins_an_epoch() -> None:
    with running_server() as primary, replica_of(primary) as replica:
        await until_replicated(primary, replica)  # from then on its id stays
        with asked(primary) as before:
            positions = await publish(before, 1, 2)
            await until_replicated(primary, replica)
        primary.kill()
        replica.cli("REPLICAOF", "NO", "ONE")
        with asked(replica) as after:
            assert after.previous_replication_id == before.replication_id
            page = await read(after, positions[1])
            assert (data_of(page), page.continuous, page.base) == ([], False, 2)
            new = await publish(after, 3, 4)
            assert data_of(await read(after, new[0])) == [4]


async def test_a_primary_that_changes_its_id_because_its_replica_left_goes_on() -> None:
    with running_server(repl_backlog_ttl=1) as primary:
        with replica_of(primary) as replica, asked(primary) as before:
            await until_replicated(primary, replica)
            before.later(3)  # past its first second, as it tells its uptime in whole ones
            positions = await publish(before, 1, 2)
        with trio.fail_after(20):
            while primary.info("replication")["master_replid"] == before.replication_id:  # noqa: ASYNC110
                await trio.sleep(0.05)
        with asked(primary) as after:
            page = await read(after, positions[0])
            assert (data_of(page), page.continuous) == ([2], True)


async def test_a_topic_that_moves_with_its_slot_goes_on() -> None:
    with cluster(2) as servers:
        slot = servers.slot_of("{a:b}")
        source = servers.owner(slot)
        target = next(server for server in servers.masters if server is not source)
        with asked(source) as before:
            positions = await publish(before, 1, 2)
        servers.migrate_slot(slot, target)
        with asked(target) as after:
            after.previous_replication_id = "f" * 40  # it was a replica once, of somebody else
            page = await read(after, positions[0])
            assert (data_of(page), page.continuous) == ([2], True)
            assert await publish(after, 3) == [Position(positions[0].epoch, 3)]
