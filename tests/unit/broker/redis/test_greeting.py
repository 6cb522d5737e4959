"""The handshake: what is said, what is understood, and what people are told when it fails."""

from typing import Any

import pytest
import trio

from notifyd.broker.redis.greeting import ServerInfo, greeting
from notifyd.broker.redis.link import Greet, LinkLost
from notifyd.broker.redis.target import Credentials
from tests.kit.redis_links import dial_port, make_link, running_link
from tests.kit.redis_servers import standalone
from tests.kit.scripted_redis import MASTER_ID, ScriptedRedis, bulk, error, information

SECRET = "hunter2-and-more"
ANN = Credentials("ann", SECRET)


@pytest.fixture
def server() -> ScriptedRedis:
    return ScriptedRedis()


async def refusal(server: ScriptedRedis, greet: Greet | None = None) -> str:
    """Why a link cannot greet."""
    async with server.running():
        with pytest.raises(LinkLost) as raised:
            async with running_link(server.dial, greet):
                pass
        assert SECRET not in repr(raised.value)
        return str(raised.value)


async def told(server: ScriptedRedis, greet: Greet | None = None) -> ServerInfo:
    async with server.running(), running_link(server.dial, greet) as link:
        assert link.server is not None
        return link.server


async def test_it_says_who_we_are_and_asks_what_the_server_is(server: ScriptedRedis) -> None:
    await told(server, greeting(ANN, database=3, client_name="notifyd-n1"))
    assert server.commands == [
        [b"HELLO", b"3", b"AUTH", b"ann", SECRET.encode(), b"SETNAME", b"notifyd-n1"],
        [b"SELECT", b"3"],
        [b"INFO"],
    ]


async def test_without_credentials_it_does_not_authenticate(server: ScriptedRedis) -> None:
    await told(server)
    assert server.commands == [[b"HELLO", b"3", b"SETNAME", b"notifyd"], [b"INFO"]]


async def test_a_password_alone_is_the_default_users(server: ScriptedRedis) -> None:
    await told(server, greeting(Credentials(password=SECRET)))
    assert server.commands[0][2:5] == [b"AUTH", b"default", SECRET.encode()]


async def test_what_the_server_tells_is_kept(server: ScriptedRedis) -> None:
    assert await told(server) == ServerInfo((7, 0, 15), "master", MASTER_ID, "", "b" * 40)
    server.info = information(version="6.2.0", previous="c" * 40)
    assert await told(server) == ServerInfo((6, 2, 0), "master", MASTER_ID, "c" * 40, "b" * 40)
    server.info = information(version="8.0-rc1")
    assert (await told(server)).version == (8, 0, 0)


@pytest.mark.parametrize("version", ["6.0.16", "6.1.9", "5.0.7"])
async def test_an_old_server_is_refused(server: ScriptedRedis, version: str) -> None:
    server.info = information(version=version)
    assert await refusal(server) == f"the server is Redis {version}, and notifyd needs 6.2 or newer"


async def test_a_server_without_hello_is_refused_and_its_echo_of_the_password_not_repeated(
    server: ScriptedRedis,
) -> None:
    server.reply(
        "HELLO", error(f"ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `ann`, `{SECRET}`")
    )
    assert await refusal(server, greeting(ANN)) == "the server is Redis before 6.0, and notifyd needs 6.2 or newer"


async def test_any_other_echo_of_the_password_is_withheld_too(server: ScriptedRedis) -> None:
    server.reply("HELLO", error(f"ERR what is {SECRET}"))
    assert await refusal(server, greeting(ANN)) == "the server refused to be greeted: what is (withheld)"


async def test_a_replica_is_refused_unless_asked_for(server: ScriptedRedis) -> None:
    server.info = information(role="slave")
    assert (await refusal(server)).startswith("the server is a replica, not a master: with Sentinels, name those")
    assert (await told(server, greeting(role="replica"))).role == "replica"
    assert (await told(server, greeting(role=None))).role == "replica"
    server.info = information()
    assert await refusal(server, greeting(role="replica")) == "the server is a master, not a replica"


async def test_a_sentinel_is_known_as_such(server: ScriptedRedis) -> None:
    server.info = bulk("redis_version:7.0.15\r\nredis_mode:sentinel\r\nrun_id:x\r\n")
    assert await told(server, greeting(role="sentinel")) == ServerInfo((7, 0, 15), "sentinel", "", "", "x")
    assert "is a sentinel, not a master" in await refusal(server)


async def test_a_server_that_loads_its_data_is_refused(server: ScriptedRedis) -> None:
    server.info = information(loading=1)
    assert await refusal(server) == "the server is loading its data"
    server.reply("INFO", error("LOADING Redis is loading the dataset in memory"))
    assert "loading" in await refusal(server)
    server.reply("HELLO", error("LOADING Redis is loading the dataset in memory"))
    assert "loading" in await refusal(server)


async def test_an_information_without_a_version_is_refused(server: ScriptedRedis) -> None:
    server.info = bulk("x:1\r\n")
    assert await refusal(server) == "the server does not tell its version in INFO"


async def test_a_refused_database_is_told(server: ScriptedRedis) -> None:
    server.reply("SELECT", error("ERR DB index is out of range"))
    assert await refusal(server, greeting(database=99)) == "the server refused to be greeted: DB index is out of range"


async def test_a_connection_that_ends_while_greeting_is_told_as_that(server: ScriptedRedis) -> None:
    async with server.running():
        server.reply("HELLO", None)
        link = make_link(server.dial)
        with pytest.RaisesGroup(pytest.RaisesExc(LinkLost, match="the server closed the connection")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                await trio.testing.wait_all_tasks_blocked()
                server.connections[-1].end()


def test_a_refreshed_information_keeps_what_it_does_not_tell() -> None:
    server = ServerInfo((7, 0, 15), "master", "a", "", "run")
    assert server.refreshed(b"# Replication\r\nrole:slave\r\nmaster_replid:b\r\nmaster_replid2:c\r\n") == ServerInfo(
        (7, 0, 15), "replica", "b", "c", "run"
    )
    assert server.refreshed(b"") == server


# --- real servers -----------------------------------------------------------------------------------------------------


async def refused_by(port: int, greet: Greet) -> str:
    with pytest.raises(LinkLost) as raised:
        await make_link(dial_port(port), greet).run()
    assert SECRET not in repr(raised.value)
    assert "wrong-one" not in repr(raised.value)
    return str(raised.value)


async def test_users_passwords_and_databases_of_a_real_server() -> None:
    rules = {"ann": f">{SECRET} ~* &* +@all", "bob": f">{SECRET} ~* &* +@all -info", "eve": f">{SECRET} nocommands"}
    with standalone(password="main", users=rules) as server:
        port = server.port
        asks = "the server asks for a password: put one into broker.url, as in redis://user:password@host:port"
        assert await refused_by(port, greeting()) == asks
        refused = "the server refused the user or the password: check those in broker.url"
        assert await refused_by(port, greeting(Credentials("ann", "wrong-one"))) == refused
        assert await refused_by(port, greeting(Credentials("nobody", SECRET))) == refused
        assert "lacks a right that notifyd needs" in await refused_by(port, greeting(Credentials("bob", SECRET)))
        assert "lacks a right that notifyd needs" in await refused_by(port, greeting(Credentials("eve", SECRET)))
        assert "out of range" in await refused_by(port, greeting(ANN, database=99))
        async with running_link(dial_port(port), greeting(ANN, database=5, client_name="notifyd-x")) as link:
            assert await link.execute("ACL", "WHOAMI") == b"ann"
            assert await link.execute("CLIENT", "GETNAME") == b"notifyd-x"
            assert b" db=5 " in await link.execute("CLIENT", "INFO")
        async with running_link(dial_port(port), greeting(Credentials(password="main"))) as link:
            assert await link.execute("ACL", "WHOAMI") == b"default"


async def test_a_real_replica_is_refused_and_a_promoted_one_tells_its_history() -> None:
    with (
        standalone(repl_diskless_sync_delay=0) as primary,
        standalone(replicaof=f"127.0.0.1 {primary.port}") as replica,
    ):
        assert "is a replica, not a master" in await refused_by(replica.port, greeting())
        async with running_link(dial_port(primary.port)) as link:
            await link.execute("SET", "a", "1")
            with trio.fail_after(20):
                while await link.execute("WAIT", 1, 500) != 1:
                    pass  # it still copies what was there before
            assert link.server is not None
            before = primary.info("replication")["master_replid"]
        primary.kill()
        replica.cli("REPLICAOF", "NO", "ONE")
        async with running_link(dial_port(replica.port)) as link:
            assert link.server is not None
            assert link.server.previous_replication_id == before
            assert link.server.replication_id not in (before, "")


@pytest.mark.parametrize(
    ("settings", "is_durable"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, True),
        ({"appendonly": "yes", "appendfsync": "everysec"}, False),
        ({"appendonly": "no", "appendfsync": "always"}, False),
        ({"appendonly": "yes", "appendfsync": "always", "users": {"ann": f">{SECRET} ~* &* +@all -config"}}, False),
    ],
    ids=["always", "everysec", "without a file", "not allowed to ask"],
)
async def test_a_real_server_tells_whether_a_restart_loses_anything(settings: dict[str, Any], is_durable: bool) -> None:
    with standalone(**settings) as server:
        credentials = ANN if "users" in settings else None
        async with running_link(dial_port(server.port), greeting(credentials)) as link:
            assert link.server is not None
            assert link.server.is_durable is is_durable
            assert link.server.refreshed(b"role:master\r\n").is_durable is is_durable
