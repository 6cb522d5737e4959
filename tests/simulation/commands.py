"""Commands on strings, keys, hashes and sets, and those that tell about the server."""

from fnmatch import translate
from re import compile as compile_pattern
from re import escape, fullmatch

from tests.simulation.engine import Engine, command
from tests.simulation.keyspace import Hash, Set
from tests.simulation.resp import OK, SYNTAX, Members, Refusal, Reply, Simple, integer

# --- the server -------------------------------------------------------------------------------------------------------


@command("ping", 0, 1)
def ping(_engine: Engine, arguments: list[bytes]) -> Reply:
    return arguments[0] if arguments else Simple(b"PONG")


@command("time", 0)
def time(engine: Engine, _arguments: list[bytes]) -> Reply:
    return [b"%d" % (engine.time_us // 1_000_000), b"%d" % (engine.time_us % 1_000_000)]


@command("info", 0, -1)
def info(engine: Engine, arguments: list[bytes]) -> Reply:
    """Tell what the product reads, section by section."""
    own = engine.identities
    sections = {
        "Server": {
            "redis_version": own.version,
            "redis_mode": "standalone",
            "run_id": own.run_id,
            "uptime_in_seconds": (engine.time_us - engine.started_us) // 1_000_000,
        },
        "Persistence": {"loading": 0, "aof_enabled": 1},
        "Replication": {
            "role": "master",
            "connected_slaves": engine.replicas,
            "master_replid": own.replication_id,
            "master_replid2": own.previous_replication_id,
        },
        "Cluster": {"cluster_enabled": 0},
    }
    wanted = {name.decode().capitalize() for name in arguments} - {"Default", "All", "Everything"} or set(sections)
    lines: list[str] = []
    for name, told in sections.items():
        if name in wanted:
            lines += [f"# {name}", *(f"{key}:{value}" for key, value in told.items()), ""]
    return "\r\n".join(lines).encode()


@command("config", 1, -1)
def config(engine: Engine, arguments: list[bytes]) -> Reply:
    """Tell a setting; the few that anybody asks for."""
    if arguments[0].upper() != b"GET":
        raise Refusal(f"ERR unknown subcommand '{arguments[0].decode(errors='replace')}'. Try CONFIG HELP.")
    known = {b"appendfsync": b"always" if engine.keeps_all else b"everysec"}
    return {name: known[name] for name in map(bytes.lower, arguments[1:]) if name in known}


@command("publish", 2)
def publish(engine: Engine, arguments: list[bytes]) -> Reply:
    return engine.exchange.publish(engine, arguments[0], arguments[1])


@command("scan", 1, -1)
def scan(engine: Engine, arguments: list[bytes]) -> Reply:
    """All in one answer: a cursor that never needs a second call is a cursor too."""
    if fullmatch(rb"[+-]?\d+|", arguments[0]) is None:
        raise Refusal("ERR invalid cursor")
    if len(arguments) % 2 == 0:
        raise Refusal(SYNTAX)
    options = {name.upper(): value for name, value in zip(arguments[1::2], arguments[2::2], strict=True)}
    pattern = options.get(b"MATCH", b"*").decode("latin-1")
    matches = compile_pattern(_glob(pattern)).match
    return [b"0", [key for key in engine.data.names() if matches(key.decode("latin-1"))]]


def _glob(pattern: str) -> str:
    """Translate a pattern of Redis: like a shell's, with a backslash before what stands for itself."""
    pieces = pattern.split("\\")
    text = [pieces[0]]
    for piece in pieces[1:]:
        text += [f"[{piece[:1]}]", piece[1:]] if piece else [escape("\\")]
    return translate("".join(text))


# --- keys -------------------------------------------------------------------------------------------------------------


@command("unlink", 1, -1)
def unlink(engine: Engine, arguments: list[bytes]) -> Reply:
    return sum(engine.data.get(key) is not None and engine.data.delete(key) for key in arguments)


@command("exists", 1, -1)
def exists(engine: Engine, arguments: list[bytes]) -> Reply:
    return sum(engine.data.get(key) is not None for key in arguments)


def _expire(engine: Engine, key: bytes, due_ms: int, name: str) -> Reply:
    if abs(due_ms) >= 2**63:
        raise Refusal(f"ERR invalid expire time in '{name}' command")
    if engine.data.get(key) is None:
        return 0
    engine.data.expire_at(key, due_ms)
    return 1


@command("pexpire", 2)
def pexpire(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments[0], engine.data.now_ms() + integer(arguments[1]), "pexpire")


@command("pexpireat", 2)
def pexpireat(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments[0], integer(arguments[1]), "pexpireat")


@command("expireat", 2)
def expireat(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments[0], 1000 * integer(arguments[1]), "expireat")


@command("pttl", 1)
def pttl(engine: Engine, arguments: list[bytes]) -> Reply:
    if engine.data.get(arguments[0]) is None:
        return -2
    due_ms = engine.data.expiry_ms(arguments[0])
    return -1 if due_ms is None else due_ms - engine.data.now_ms()


# --- strings ----------------------------------------------------------------------------------------------------------


@command("get", 1)
def get(engine: Engine, arguments: list[bytes]) -> Reply:
    return engine.data.text(arguments[0])


@command("set", 2, 4)
def set_(engine: Engine, arguments: list[bytes]) -> Reply:
    """Put a string, with `PX milliseconds` for so long."""
    key, value, *options = arguments
    due_ms = None
    if options:
        if len(options) != 2 or options[0].upper() != b"PX":
            raise Refusal(SYNTAX)
        due_ms = engine.data.now_ms() + integer(options[1])
        if due_ms <= engine.data.now_ms():
            raise Refusal("ERR invalid expire time in 'set' command")
    engine.data.set(key, value)
    if due_ms is not None:
        engine.data.expire_at(key, due_ms)
    return OK


# --- hashes -----------------------------------------------------------------------------------------------------------


@command("hset", 3, -1)
def hset(engine: Engine, arguments: list[bytes]) -> Reply:
    key, *pairs = arguments
    if len(pairs) % 2:
        raise Refusal("ERR wrong number of arguments for 'hset' command")
    fields = engine.data.open(key, Hash)
    before = len(fields)
    fields.update(zip(pairs[::2], pairs[1::2], strict=True))
    return len(fields) - before


@command("hget", 2)
def hget(engine: Engine, arguments: list[bytes]) -> Reply:
    return (engine.data.find(arguments[0], Hash) or {}).get(arguments[1])


@command("hmget", 2, -1)
def hmget(engine: Engine, arguments: list[bytes]) -> Reply:
    fields = engine.data.find(arguments[0], Hash) or {}
    return [fields.get(name) for name in arguments[1:]]


@command("hvals", 1)
def hvals(engine: Engine, arguments: list[bytes]) -> Reply:
    return list((engine.data.find(arguments[0], Hash) or {}).values())


@command("hdel", 2, -1)
def hdel(engine: Engine, arguments: list[bytes]) -> Reply:
    fields = engine.data.find(arguments[0], Hash)
    if fields is None:
        return 0
    gone = sum(fields.pop(name, None) is not None for name in arguments[1:])
    engine.data.settle(arguments[0])
    return gone


# --- sets -------------------------------------------------------------------------------------------------------------


@command("sadd", 2, -1)
def sadd(engine: Engine, arguments: list[bytes]) -> Reply:
    members = engine.data.open(arguments[0], Set)
    before = len(members)
    members.update(dict.fromkeys(arguments[1:]))
    return len(members) - before


@command("srem", 2, -1)
def srem(engine: Engine, arguments: list[bytes]) -> Reply:
    members = engine.data.find(arguments[0], Set)
    if members is None:
        return 0
    gone = [member for member in dict.fromkeys(arguments[1:]) if member in members]
    for member in gone:
        del members[member]
    engine.data.settle(arguments[0])
    return len(gone)


@command("smembers", 1)
def smembers(engine: Engine, arguments: list[bytes]) -> Reply:
    return Members(engine.data.find(arguments[0], Set) or {})


@command("sismember", 2)
def sismember(engine: Engine, arguments: list[bytes]) -> Reply:
    return int(arguments[1] in (engine.data.find(arguments[0], Set) or {}))
