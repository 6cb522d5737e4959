"""A Cluster in memory and in virtual time: what it answers is scripted, so that every turn can be taken on purpose."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from redis.crc import key_slot
from trio.testing import MockClock

from notifyd.broker.redis.link import ignore
from notifyd.broker.redis.target import Endpoint
from notifyd.broker.redis.topology.cluster import ClusterServers
from notifyd.broker.redis.topology.slots import SlotView
from notifyd.broker.redis.topology.views import elect
from notifyd.errors import BrokerUnavailable
from tests.kit.scripted_redis import Reply, ScriptedRedis, array, bulk, error, information, integer, ok
from tests.kit.services import RunServices, open_services
from tests.unit.broker.redis.lua_scripts import COUNT, write_script
from tests.unit.broker.redis.scripted_linking import ScriptedLinking

A, B, C, NEW = "10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3", "10.0.0.4:4"
OF_A = (5461, 10922)
THIRDS: Mapping[tuple[int, int], str] = {(0, 5460): C, OF_A: A, (10923, 16383): B}
KEYS = {A: "c", B: "a", C: "b"}  # a key in each third
AWAY = error("CLUSTERDOWN Hash slot not served")


def test_the_keys_are_where_they_are_said_to_be() -> None:
    thirds = {address: (first, last) for (first, last), address in THIRDS.items()}
    for address, key in KEYS.items():
        first, last = thirds[address]
        assert first <= slot_of(key) <= last


def slot_of(key: str) -> int:
    return int(key_slot(key.encode()))


def slots_reply(owners: Mapping[tuple[int, int], str]) -> bytes:
    rows = []
    for (first, last), address in owners.items():
        host, port = address.split(":")
        rows.append(array(integer(first), integer(last), array(bulk(host), integer(int(port)), bulk("id"))))
    return array(*rows)


class Three(ScriptedLinking):
    """Three masters that agree, and a fourth server that has no slot."""

    def __init__(self, seeds: str = f"{A},{B}") -> None:
        super().__init__(f"redis+cluster://{seeds}", [A, B, C, NEW])
        self.state = "ok"
        self.agree(THIRDS)

    def agree(self, owners: Mapping[tuple[int, int], str], *addresses: str) -> None:
        """Let all of them, or these, say so."""
        for address in addresses or self.servers:
            self.servers[address].reply("CLUSTER", lambda command: self._about(command, slots_reply(owners)))

    def _about(self, command: list[bytes], slots: bytes) -> bytes:
        return slots if command[1] == b"SLOTS" else bulk(f"cluster_state:{self.state}\r\n")

    def answers(self, address: str, name: str, *replies: Reply) -> None:
        """Answer so, one after the other; the last one for ever."""
        pending = list(replies)
        self.servers[address].reply(name, lambda _command: pending.pop(0) if len(pending) > 1 else pending[0])

    def asked(self, address: str, name: str) -> list[list[bytes]]:
        return self.servers[address].called(name)


@asynccontextmanager
async def served(linking: ScriptedLinking, seconds: float = 1.0) -> AsyncIterator[tuple[ClusterServers, RunServices]]:
    async with linking.running(), open_services() as services:
        servers = ClusterServers(linking)
        await servers.start(services)
        await trio.sleep(seconds)
        yield servers, services


# --- the table --------------------------------------------------------------------------------------------------------


async def test_every_master_has_a_link_and_every_key_its_master(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, services):
        assert services.names == {"slots", f"redis {A}", f"redis {B}", f"redis {C}"}
        assert servers.problems() == []
        assert servers.sharded
        for address, key in KEYS.items():
            await servers.execute(key, "SET", key, "v")
            assert linking.servers[address].strings == {key.encode(): b"v"}
            assert servers.feed_home(key) == address
            assert await servers.execute(f"{{{key}}}", "GET", key) == b"v"
        assert not services.failures


async def test_before_anything_is_known_everything_is_unavailable_at_once(autojump_clock: MockClock) -> None:
    linking = Three()
    for address in (A, B):
        linking.crash(address)
    async with served(linking, 0.0) as (servers, _):
        assert servers.problems() == ["the slots of the Cluster are not known yet"]
        await trio.sleep(0.1)
        [problem] = servers.problems()
        assert problem.startswith("no server of the Cluster tells its slots: ")
        assert f"{A}: Connection refused" in problem
        assert f"{B}: Connection refused" in problem
        now_s = trio.current_time()
        for ask in (servers.execute("k", "GET", "k"), servers.scan("*")):
            with pytest.raises(BrokerUnavailable, match="no server of the Cluster tells its slots"):
                await ask
        with pytest.raises(BrokerUnavailable, match="tells its slots"):
            servers.feed_home("channel")
        assert trio.current_time() == now_s
        linking.servers[B].refusal = None
        linking.servers[A].refusal = None
        await trio.sleep(2)
        assert servers.problems() == []


async def test_a_server_that_is_in_no_cluster_is_told_apart(autojump_clock: MockClock) -> None:
    linking = Three(A)
    linking.servers[A].reply("CLUSTER", error("ERR This instance has cluster support disabled"))
    async with served(linking) as (servers, _):
        [problem] = servers.problems()
        assert problem.startswith(f"no server of the Cluster tells its slots: {A}: it is no member of a Cluster: ")
        assert problem.endswith("write redis:// for a single server")


async def test_slots_that_nobody_serves_are_told(autojump_clock: MockClock) -> None:
    linking = Three()
    linking.agree({(0, 5460): C, (5461, 9999): A, (12000, 16383): B})
    async with served(linking) as (servers, _):
        assert servers.problems() == ["no server of the Cluster serves the slots 10000-11999"]
        lost = next(f"k{number}" for number in range(10_000) if 10_000 <= slot_of(f"k{number}") < 12_000)
        with pytest.raises(BrokerUnavailable, match=f"no server of the Cluster serves slot {slot_of(lost)}"):
            await servers.execute(lost, "GET", lost)
        with pytest.raises(BrokerUnavailable, match="serves the slots 10000-11999"):
            await servers.scan("*")
        linking.agree(THIRDS)
        await trio.sleep(2)
        assert servers.problems() == []


async def test_a_lost_master_makes_the_table_be_read_until_another_has_its_slots(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, services):
        changes: list[str] = []
        servers.on_change(lambda: changes.append(servers.feed_home(KEYS[A])))
        linking.crash(A)
        await trio.sleep(2)
        assert len(servers.problems()) == 1
        assert servers.problems()[0].startswith(f"redis at {A} is ")
        assert servers.problems()[0].endswith(": Connection refused")
        now_s = trio.current_time()
        with pytest.raises(BrokerUnavailable, match=f"redis at {A}: Connection refused"):
            await servers.execute(KEYS[A], "GET", "c")
        assert trio.current_time() == now_s
        assert await servers.execute(KEYS[B], "GET", "a") is None
        linking.agree({**THIRDS, OF_A: NEW})
        await trio.sleep(1.5)
        assert servers.problems() == []
        assert changes == [NEW]
        await servers.execute(KEYS[A], "SET", "c", "v")
        assert linking.servers[NEW].strings == {b"c": b"v"}
        await trio.sleep(3)
        assert services.names == {"slots", f"redis {NEW}", f"redis {B}", f"redis {C}"}


async def test_a_table_at_rest_is_read_again_now_and_then(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        before = sum(len(linking.asked(address, "CLUSTER")) // 2 for address in (A, B, C))
        linking.agree({**THIRDS, (0, 100): B, (101, 5460): C})
        await trio.sleep(20)
        assert servers.feed_home(next(f"k{n}" for n in range(10_000) if slot_of(f"k{n}") <= 100)) == B
        after = sum(len(linking.asked(address, "CLUSTER")) // 2 for address in (A, B, C))
        assert 3 <= after - before <= 6


async def test_when_no_link_is_up_anybody_known_is_asked(autojump_clock: MockClock) -> None:
    linking = Three(A)
    async with served(linking) as (servers, services):
        for address in (A, B, C):
            linking.crash(address)
        await trio.sleep(1)
        assert len(servers.problems()) == 3
        assert any("no server of the Cluster tells its slots" in failure for failure in services.failures["slots"])
        linking.servers[C].refusal = None  # no seed
        linking.agree({(0, 16383): C})
        await trio.sleep(3)
        assert servers.problems() == []


def test_most_servers_decide_and_a_whole_view_wins_a_tie() -> None:
    a, b = Endpoint("a", 1), Endpoint("b", 1)
    old, new, part = SlotView(((0, 16383, a),)), SlotView(((0, 16383, b),)), SlotView(((0, 100, b),))
    assert elect([old, new, new]) == new
    assert elect([new, old, new]) == new
    assert elect([part, old]) == old
    assert elect([part, part, old]) == part


async def test_one_master_with_an_old_view_is_outvoted(autojump_clock: MockClock) -> None:
    linking = Three()
    linking.agree({(0, 16383): NEW}, A)
    async with served(linking, 3) as (servers, services):
        assert servers.problems() == []
        assert servers.feed_home(KEYS[A]) == A
        await trio.sleep(3)
        assert f"redis {NEW}" not in services.names


async def test_a_cluster_that_is_down_is_told(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.state = "fail"
        linking.answers(A, "GET", AWAY)
        with pytest.raises(BrokerUnavailable):
            await servers.execute(KEYS[A], "GET", "c")
        assert f"redis at {A} says that the Cluster is down" in servers.problems()
        linking.state = "ok"
        await trio.sleep(1.1)
        assert servers.problems() == []


# --- redirections -----------------------------------------------------------------------------------------------------


async def test_moved_is_followed_remembered_and_makes_the_table_be_read(autojump_clock: MockClock) -> None:
    linking = Three()
    slot = slot_of(KEYS[A])
    async with served(linking) as (servers, _):
        changes: list[str] = []
        servers.on_change(lambda: changes.append(servers.feed_home(KEYS[A])))
        linking.answers(A, "SET", error(f"MOVED {slot} {B}"))
        moved = {**THIRDS, (slot, slot): B}
        linking.agree(moved)
        asked = len(linking.asked(A, "CLUSTER"))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(servers.execute, KEYS[A], "SET", "c", f"v{number}")
        assert len(linking.asked(B, "SET")) == 20
        await servers.execute(KEYS[A], "SET", "c", "last")
        assert len(linking.asked(A, "SET")) == 20  # the table knows
        assert changes == [B]
        await trio.sleep(1)
        assert len(linking.asked(A, "CLUSTER")) - asked <= 2 * 2  # the refreshes are one
        assert servers.problems() == []


async def test_moved_to_a_server_never_heard_of_waits_for_its_link(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, services):
        linking.answers(A, "SET", error(f"MOVED {slot_of(KEYS[A])} {NEW}"))
        linking.agree({**THIRDS, OF_A: NEW})
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(servers.execute, KEYS[A], "SET", "c", f"v{number}")
            await trio.lowlevel.checkpoint()
            nursery.start_soon(servers.execute, KEYS[A], "SET", "c", "later")
        assert len(linking.asked(NEW, "SET")) == 6
        assert f"redis {NEW}" in services.names
        await trio.sleep(3)
        assert f"redis {A}" not in services.names
        assert servers.problems() == []


async def test_moved_without_a_host_means_the_same_host(autojump_clock: MockClock) -> None:
    linking = Three()
    linking.servers["10.0.0.1:9"] = ScriptedRedis()
    async with served(linking) as (servers, _):
        linking.answers(A, "SET", error(f"MOVED {slot_of(KEYS[A])} :9"))
        await servers.execute(KEYS[A], "SET", "c", "v")
        assert linking.servers["10.0.0.1:9"].strings == {b"c": b"v"}


async def test_ask_is_followed_once_with_asking_right_before(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.answers(A, "SET", error(f"ASK {slot_of(KEYS[A])} {B}"), ok())
        await servers.execute(KEYS[A], "SET", "c", "asked")
        assert linking.servers[B].strings == {b"c": b"asked"}
        position = linking.servers[B].commands.index([b"SET", b"c", b"asked"])
        assert linking.servers[B].commands[position - 1] == [b"ASKING"]
        await servers.execute(KEYS[A], "SET", "c", "w")
        assert len(linking.asked(B, "SET")) == 1
        assert servers.feed_home(KEYS[A]) == A


async def test_a_script_takes_the_ids_of_the_server_it_ends_up_at(autojump_clock: MockClock, tmp_path: Path) -> None:
    script = write_script(tmp_path, COUNT)
    linking = Three()
    linking.servers[B].info = information(replication_id="b" * 40, previous="c" * 40)
    async with served(linking) as (servers, _):
        linking.answers(A, "EVALSHA", error(f"ASK {slot_of(KEYS[A])} {B}"), error(f"MOVED {slot_of(KEYS[A])} {B}"))
        linking.answers(B, "EVALSHA", error("NOSCRIPT No matching script"), integer(2))
        linking.servers[B].reply("EVAL", integer(1))
        assert await servers.evaluate(script, [KEYS[A], "{c}x"], ["one"]) == 1
        end = [b"2", b"c", b"{c}x", b"one", b"b" * 40, b"c" * 40, b"0"]
        assert linking.asked(A, "EVALSHA") == [[b"EVALSHA", script.sha.encode(), *end[:4], b"a" * 40, b"", b"0"]]
        asked = linking.servers[B].commands
        assert asked[-4:] == [
            [b"ASKING"],
            [b"EVALSHA", script.sha.encode(), *end],
            [b"ASKING"],
            [b"EVAL", script.text.encode(), *end],
        ]
        assert await servers.evaluate(script, [KEYS[A]], []) == 2
        assert [b"EVALSHA", script.sha.encode(), b"1", b"c", *end[-3:]] in asked


@pytest.mark.parametrize("reply", [error("TRYAGAIN Multiple keys request during rehashing of slot"), AWAY])
async def test_a_server_that_asks_for_patience_is_asked_again(autojump_clock: MockClock, reply: bytes) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.answers(A, "GET", reply, reply, reply, bulk("v"))
        assert await servers.execute(KEYS[A], "GET", "c") == b"v"
        assert len(linking.asked(A, "GET")) == 4


async def test_patience_ends_with_the_deadline(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.answers(A, "GET", AWAY)
        linking.answers(B, "GET", error(f"MOVED {slot_of(KEYS[B])} {C}"))
        linking.answers(C, "GET", error(f"MOVED {slot_of(KEYS[B])} {B}"))
        for key, told in ((KEYS[A], "Hash slot not served"), (KEYS[B], f"{slot_of(KEYS[B])} 10.0.0")):
            began_s = trio.current_time()
            with pytest.raises(BrokerUnavailable, match=rf"answered for slot {slot_of(key)} within 1 s: .*{told}"):
                await servers.execute(key, "GET", key)
            assert trio.current_time() - began_s == pytest.approx(1)
        assert len(linking.asked(B, "GET")) + len(linking.asked(C, "GET")) < 40


async def test_an_error_where_a_question_was_sent_to_names_that_server(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.answers(A, "SET", error(f"MOVED {slot_of(KEYS[A])} {B}"))
        linking.answers(B, "SET", error("OOM command not allowed"))
        with pytest.raises(BrokerUnavailable, match=f"^redis at {B} refused: .*command not allowed"):
            await servers.execute(KEYS[A], "SET", "c", "v")


async def test_a_server_lost_on_the_way_is_told_at_once(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, _):
        linking.crash(B)
        await trio.sleep(0.1)
        linking.answers(A, "GET", error(f"ASK {slot_of(KEYS[A])} {B}"))
        now_s = trio.current_time()
        with pytest.raises(BrokerUnavailable, match=f"redis at {B}: Connection refused"):
            await servers.execute(KEYS[A], "GET", "c")
        assert trio.current_time() == now_s


# --- scans, feeds, channels of shards ---------------------------------------------------------------------------------


async def test_a_scan_asks_every_master_and_tells_each_key_once(autojump_clock: MockClock) -> None:
    linking = Three()
    for address, keys in ((A, "a both"), (B, "b both"), (C, "c")):
        pages = [
            array(bulk("9"), array(bulk("first" + address[-1]))),
            array(bulk("0"), array(*map(bulk, keys.split()))),
        ]
        linking.answers(address, "SCAN", *pages)
    async with served(linking) as (servers, _):
        assert sorted(await servers.scan("*")) == ["a", "b", "both", "c", "first1", "first2", "first3"]
        linking.crash(C)
        await trio.sleep(0.05)
        with pytest.raises(BrokerUnavailable, match=f"redis at {C}"):
            await servers.scan("*")


async def test_feeds_go_to_masters_only(autojump_clock: MockClock) -> None:
    linking = Three()
    async with served(linking) as (servers, services):
        feed = servers.open_feed(B, ignore)
        await services.start("feed", feed.run)
        await feed.subscribe("SSUBSCRIBE", ["channel"])
        with pytest.raises(BrokerUnavailable, match=f"{NEW} is not a master of the Cluster any more"):
            servers.open_feed(NEW, ignore)
        linking.servers[B].info = information(role="slave")
        linking.crash(B)
        linking.servers[B].refusal = None
        await trio.sleep(0.3)
        assert "it is a replica now: another one serves its slots" in services.failures["feed"]


@pytest.mark.parametrize(("oldest", "sharded"), [("6.2.14", False), ("7.0.0", True)])
async def test_channels_are_of_shards_where_all_masters_know_them(
    autojump_clock: MockClock, oldest: str, sharded: bool
) -> None:
    linking = Three()
    linking.servers[B].info = information(version=oldest)
    async with served(linking) as (servers, _):
        assert servers.sharded is sharded
        linking.crash(B)
        await trio.sleep(1)
        assert servers.sharded is sharded  # an absent server has not learnt anything


async def test_a_server_of_another_version_is_a_change(autojump_clock: MockClock) -> None:
    linking = Three()
    linking.servers[B].info = information(version="6.2.14")
    async with served(linking) as (servers, _):
        changes: list[bool] = []
        servers.on_change(lambda: changes.append(servers.sharded))
        linking.servers[B].info = information(version="7.0.0")
        linking.crash(B)
        linking.servers[B].refusal = None
        await trio.sleep(1)
        assert changes == [True]


async def test_where_a_channel_lives_is_unknown_before_a_master_has_said_what_it_can(autojump_clock: MockClock) -> None:
    linking = Three(NEW)
    for address in (A, B, C):
        linking.crash(address)
    async with served(linking) as (servers, _):
        assert len(servers.problems()) == 3
        with pytest.raises(BrokerUnavailable, match="no master of the Cluster has been reached yet"):
            servers.feed_home("channel")
        homes: list[Any] = []
        servers.on_change(lambda: homes.append(servers.feed_home(KEYS[A])))
        linking.servers[B].refusal = None
        await trio.sleep(2)
        assert homes == [A]
