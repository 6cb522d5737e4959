"""redis-py's commands over a link: the replies are those that redis-py itself gives on RESP3."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import Redis
from redis.commands import AsyncCoreCommands
from redis.exceptions import DataError, NoScriptError, ResponseError

from notifyd.broker.redis.client import RedisClient
from tests.kit.redis_links import dial_port, running_link
from tests.kit.redis_process import RedisServer

pytestmark = pytest.mark.usefixtures("redis_url")

Call = Callable[[Any], Any]


class Canned:
    """Executes nothing: notes the command, gives the reply."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.commands: list[tuple[Any, ...]] = []

    async def execute(self, *command: Any) -> Any:
        self.commands.append(command)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


COMMANDS: dict[str, Call] = {
    "set": lambda redis: redis.set("a", 1, px=60_000),
    "set nx": lambda redis: redis.set("a", 1, nx=True),
    "get": lambda redis: redis.get("a"),
    "mget": lambda redis: redis.mget("a", "none"),
    "incr": lambda redis: redis.incr("n"),
    "expire": lambda redis: redis.expire("a", 60),
    "exists": lambda redis: redis.exists("a", "n", "none"),
    "hset": lambda redis: redis.hset("h", mapping={"x": "1", "y": b"\xff"}),
    "hgetall": lambda redis: redis.hgetall("h"),
    "zadd": lambda redis: redis.zadd("z", {"m1": 1.5, "m2": 2}),
    "zrange": lambda redis: redis.zrange("z", 0, -1, withscores=True),
    "zscore": lambda redis: redis.zscore("z", "m1"),
    "sadd": lambda redis: redis.sadd("s", "x"),
    "smembers": lambda redis: redis.smembers("s"),
    "xadd": lambda redis: redis.xadd("stream", {"t": 1, "m": b"\x00"}, id="1-0"),
    "xrange": lambda redis: redis.xrange("stream"),
    "xread": lambda redis: redis.xread({"stream": "0"}),
    "xlen": lambda redis: redis.xlen("stream"),
    "scan": lambda redis: redis.scan(0, match="stream*", count=1000),
    "hscan": lambda redis: redis.hscan("h"),
    "type": lambda redis: redis.type("z"),
    "dump": lambda redis: redis.dump("a"),
    "eval": lambda redis: redis.eval("return {ARGV[1], 2, false, {ok='fine'}}", 0, "x"),
    "script exists": lambda redis: redis.script_exists("0" * 40),
    "config get": lambda redis: redis.config_get("maxmemory-policy"),
    "config set": lambda redis: redis.config_set("slowlog-max-len", 100),
    "slowlog len": lambda redis: redis.slowlog_get(0),
    "client setname": lambda redis: redis.client_setname("me"),
    "client getname": lambda redis: redis.client_getname(),
    "ping": lambda redis: redis.ping(),
    "role": lambda redis: redis.role()[0] if isinstance(redis, Redis) else first(redis.role()),
    "acl whoami": lambda redis: redis.acl_whoami(),
    "publish": lambda redis: redis.publish("nobody", "x"),
    "pubsub numsub": lambda redis: redis.pubsub_numsub("a"),
    "object": lambda redis: redis.object("ENCODING", "n"),
    "delete": lambda redis: redis.delete("a"),
    "digits": lambda redis: redis.echo("x"),
}


async def first(coming: Awaitable[Any]) -> Any:
    return (await coming)[0]


async def test_replies_are_those_of_redis_py(redis_server: RedisServer) -> None:
    redis_server.cli("FLUSHALL")
    with Redis(port=redis_server.port, protocol=3) as theirs:
        expected = {name: call(theirs) for name, call in COMMANDS.items()}
    redis_server.cli("FLUSHALL")
    async with running_link(dial_port(redis_server.port)) as link:
        client = RedisClient(link)
        for name, call in COMMANDS.items():
            assert await call(client) == expected[name], name


async def test_information_is_read(redis_server: RedisServer) -> None:
    async with running_link(dial_port(redis_server.port)) as link:
        information = await RedisClient(link).info("server")
        assert information["redis_mode"] == "standalone"
        assert information["tcp_port"] == redis_server.port


async def test_iterating_over_keys(redis_server: RedisServer) -> None:
    async with running_link(dial_port(redis_server.port)) as link:
        client = RedisClient(link)
        for number in range(30):
            await client.set(f"key{number}", "x")
        assert {key async for key in client.scan_iter("key*", count=7)} == {b"key%d" % number for number in range(30)}


async def test_scripts_are_loaded_where_they_are_missing(redis_server: RedisServer) -> None:
    redis_server.cli("SCRIPT", "FLUSH")
    async with running_link(dial_port(redis_server.port)) as link:
        client = RedisClient(link)
        script = client.register_script("return ARGV[1]")
        with pytest.raises(NoScriptError):
            await client.evalsha(script.sha, 0, "x")
        assert await script(args=["x"]) == b"x"
        assert await client.evalsha(script.sha, 0, "y") == b"y"


async def test_errors_are_redis_pys(redis_server: RedisServer) -> None:
    async with running_link(dial_port(redis_server.port)) as link:
        client = RedisClient(link)
        await client.set("a", "1")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await client.hgetall("a")
        with pytest.raises(DataError, match="an argument of SET cannot be sent"):
            await client.execute_command("SET", "a", True)


async def test_names_of_two_words_are_two_arguments() -> None:
    canned = Canned(b"OK")
    client = RedisClient(canned)
    await client.script_flush()
    await client.execute_command(b"CONFIG RESETSTAT")
    assert canned.commands == [("SCRIPT", "FLUSH"), ("CONFIG", "RESETSTAT")]


async def test_options_of_redis_pys_own_do_not_reach_the_callbacks() -> None:
    client = RedisClient(Canned(b"\x00\xff"))
    assert await client.execute_command("DUMP", "a", NEVER_DECODE=[], keys=["a"]) == b"\x00\xff"
    assert await client.execute_command("MGET", EMPTY_RESPONSE=[]) == b"\x00\xff"
    failing = RedisClient(Canned(ResponseError("no")))
    assert await failing.execute_command("MGET", EMPTY_RESPONSE=[]) == []
    with pytest.raises(ResponseError):
        await failing.execute_command("MGET")


@pytest.mark.parametrize(
    "command",
    [
        ("SUBSCRIBE", "a"),
        ("ssubscribe", "a"),
        ("SELECT", 1),
        ("MULTI",),
        ("WATCH", "a"),
        ("MONITOR",),
        ("HELLO", 2),
        ("CLIENT REPLY", "OFF"),
        ("CLIENT", b"reply", "OFF"),
        ("BLPOP", "a", 0),
        ("XREAD", "BLOCK", 0, "STREAMS", "a", "$"),
        ("XREADGROUP", "GROUP", "g", "c", b"block", 0, "STREAMS", "a", ">"),
        (b"RESET",),
    ],
)
async def test_what_would_change_or_block_the_shared_connection_is_refused(command: tuple[Any, ...]) -> None:
    canned = Canned(b"OK")
    with pytest.raises(DataError, match="a connection that all tasks share"):
        await RedisClient(canned).execute_command(*command)
    assert canned.commands == []


def test_it_is_redis_pys() -> None:
    assert issubclass(RedisClient, AsyncCoreCommands)
