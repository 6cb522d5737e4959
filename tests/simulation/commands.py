"""Commands on strings, keys, hashes and sets, and those that tell about the server."""

from fnmatch import translate
from re import compile as compile_pattern
from re import escape, fullmatch

from tests.simulation.engine import Engine, command
from tests.simulation.keyspace import Hash, Set, SortedSet, Stream
from tests.simulation.resp import NOT_AN_INTEGER, OK, SYNTAX, Members, Refusal, Reply, Simple, integer

# --- the server -------------------------------------------------------------------------------------------------------


@command("ping", 0, 1)
def ping(_engine: Engine, arguments: list[bytes]) -> Reply:
    return arguments[0] if arguments else Simple(b"PONG")


@command("echo", 1)
def echo(_engine: Engine, arguments: list[bytes]) -> Reply:
    return arguments[0]


@command("time", 0)
def time(engine: Engine, _arguments: list[bytes]) -> Reply:
    return [b"%d" % (engine.time_us // 1_000_000), b"%d" % (engine.time_us % 1_000_000)]


@command("role", 0)
def role(engine: Engine, _arguments: list[bytes]) -> Reply:
    return [engine.identities.role.encode(), 0, []]


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
            "role": own.role,
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
    return engine.exchange.publish(engine, arguments[0], arguments[1], sharded=False)


@command("spublish", 2)
def spublish(engine: Engine, arguments: list[bytes]) -> Reply:
    return engine.exchange.publish(engine, arguments[0], arguments[1], sharded=True)


@command("flushall", 0, 1)
def flushall(engine: Engine, _arguments: list[bytes]) -> Reply:
    for key in engine.data.names():
        engine.data.delete(key)
    return OK


@command("scan", 1, -1)
def scan(engine: Engine, arguments: list[bytes]) -> Reply:
    """All in one answer: a cursor that never needs a second call is a cursor too."""
    if fullmatch(rb"[+-]?\d+|", arguments[0]) is None:
        raise Refusal("ERR invalid cursor")
    if len(arguments) % 2 == 0:
        raise Refusal(SYNTAX)
    options = {name.upper(): value for name, value in zip(arguments[1::2], arguments[2::2], strict=True)}
    pattern = options.get(b"MATCH", b"*").decode("latin-1")
    kind = options.get(b"TYPE", b"").lower()
    matches = compile_pattern(_glob(pattern)).match
    keys = [key for key in engine.data.names() if matches(key.decode("latin-1"))]
    return [b"0", [key for key in keys if not kind or type_of(engine, [key]) == kind]]


def _glob(pattern: str) -> str:
    """Translate a pattern of Redis: like a shell's, with a backslash before what stands for itself."""
    pieces = pattern.split("\\")
    text = [pieces[0]]
    for piece in pieces[1:]:
        text += [f"[{piece[:1]}]", piece[1:]] if piece else [escape("\\")]
    return translate("".join(text))


# --- keys -------------------------------------------------------------------------------------------------------------


@command("del", 1, -1)
@command("unlink", 1, -1)
def delete(engine: Engine, arguments: list[bytes]) -> Reply:
    return sum(engine.data.get(key) is not None and engine.data.delete(key) for key in arguments)


@command("exists", 1, -1)
def exists(engine: Engine, arguments: list[bytes]) -> Reply:
    return sum(engine.data.get(key) is not None for key in arguments)


@command("type", 1)
def type_of(engine: Engine, arguments: list[bytes]) -> Reply:
    names = {bytes: b"string", Hash: b"hash", Set: b"set", SortedSet: b"zset", Stream: b"stream"}
    value = engine.data.get(arguments[0])
    return Simple(b"none" if value is None else names[type(value)])


def _expire(engine: Engine, arguments: list[bytes], factor: int, base_ms: int) -> Reply:
    key, options = arguments[0], {option.upper() for option in arguments[2:]}
    for option in arguments[2:]:
        if option.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            raise Refusal(f"ERR Unsupported option {option.decode(errors='replace')}")
    if b"NX" in options and len(options) > 1:
        raise Refusal("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= options:
        raise Refusal("ERR GT and LT options at the same time are not compatible")
    due_ms = base_ms + factor * integer(arguments[1])
    if abs(due_ms) >= 2**63:
        raise Refusal(f"ERR invalid expire time in '{'pexpire' if factor == 1 else 'expire'}' command")
    if engine.data.get(key) is None:
        return 0
    known_ms = engine.data.expiry_ms(key)
    if (
        (b"NX" in options and known_ms is not None)
        or (b"XX" in options and known_ms is None)
        or (b"GT" in options and (known_ms is None or due_ms <= known_ms))
        or (b"LT" in options and known_ms is not None and due_ms >= known_ms)
    ):
        return 0
    engine.data.expire_at(key, due_ms)
    return 1


@command("expire", 2, -1)
def expire(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments, 1000, engine.data.now_ms())


@command("pexpire", 2, -1)
def pexpire(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments, 1, engine.data.now_ms())


@command("pexpireat", 2, -1)
def pexpireat(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments, 1, 0)


@command("expireat", 2, -1)
def expireat(engine: Engine, arguments: list[bytes]) -> Reply:
    return _expire(engine, arguments, 1000, 0)


@command("persist", 1)
def persist(engine: Engine, arguments: list[bytes]) -> Reply:
    return int(engine.data.persist(arguments[0]))


@command("pttl", 1)
def pttl(engine: Engine, arguments: list[bytes]) -> Reply:
    if engine.data.get(arguments[0]) is None:
        return -2
    due_ms = engine.data.expiry_ms(arguments[0])
    return -1 if due_ms is None else due_ms - engine.data.now_ms()


@command("ttl", 1)
def ttl(engine: Engine, arguments: list[bytes]) -> Reply:
    left_ms = pttl(engine, arguments)
    return left_ms if left_ms < 0 else (left_ms + 500) // 1000


# --- strings ----------------------------------------------------------------------------------------------------------


@command("get", 1)
def get(engine: Engine, arguments: list[bytes]) -> Reply:
    return engine.data.text(arguments[0])


@command("mget", 1, -1)
def mget(engine: Engine, arguments: list[bytes]) -> Reply:
    values = [engine.data.get(key) for key in arguments]
    return [value if isinstance(value, bytes) else None for value in values]


@command("set", 2, -1)
def set_(engine: Engine, arguments: list[bytes]) -> Reply:
    data, (key, value, *options) = engine.data, arguments
    flags, due_ms = _set_options(engine, options)
    before = data.text(key) if b"GET" in flags else None
    known = data.get(key) is not None
    if (b"NX" in flags and known) or (b"XX" in flags and not known):
        return before
    data.set(key, value, keep_ttl=b"KEEPTTL" in flags)
    if due_ms is not None:
        data.expire_at(key, due_ms)
    return before if b"GET" in flags else OK


def _set_options(engine: Engine, options: list[bytes]) -> tuple[set[bytes], int | None]:
    flags: set[bytes] = set()
    time: tuple[bytes, bytes] | None = None
    rest = list(options)
    while rest:
        option = rest.pop(0).upper()
        if option in (b"NX", b"XX", b"GET", b"KEEPTTL"):
            flags.add(option)
        elif option in (b"EX", b"PX", b"EXAT", b"PXAT") and rest and (time is None or time[0] == option):
            time = (option, rest.pop(0))
        else:
            raise Refusal(SYNTAX)
    if {b"NX", b"XX"} <= flags or (time is not None and b"KEEPTTL" in flags):
        raise Refusal(SYNTAX)
    if time is None:
        return flags, None
    unit, text = time
    amount = integer(text) * (1000 if unit in (b"EX", b"EXAT") else 1)
    if amount <= 0:
        raise Refusal("ERR invalid expire time in 'set' command")
    return flags, amount + (0 if unit.endswith(b"AT") else engine.data.now_ms())


def _add(text: bytes | None, amount: int, refusal: str = NOT_AN_INTEGER) -> int:
    try:
        total = integer(b"0" if text is None else text) + amount
    except Refusal:
        raise Refusal(refusal) from None
    if not -(2**63) <= total < 2**63:
        raise Refusal("ERR increment or decrement would overflow")
    return total


@command("incrby", 2)
def incrby(engine: Engine, arguments: list[bytes]) -> Reply:
    amount = integer(arguments[1])
    total = _add(engine.data.text(arguments[0]), amount)
    engine.data.set(arguments[0], b"%d" % total, keep_ttl=True)
    return total


@command("incr", 1)
def incr(engine: Engine, arguments: list[bytes]) -> Reply:
    return incrby(engine, [arguments[0], b"1"])


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


@command("hsetnx", 3)
def hsetnx(engine: Engine, arguments: list[bytes]) -> Reply:
    fields = engine.data.find(arguments[0], Hash) or {}
    return 0 if arguments[1] in fields else hset(engine, arguments)


@command("hget", 2)
def hget(engine: Engine, arguments: list[bytes]) -> Reply:
    return (engine.data.find(arguments[0], Hash) or {}).get(arguments[1])


@command("hmget", 2, -1)
def hmget(engine: Engine, arguments: list[bytes]) -> Reply:
    fields = engine.data.find(arguments[0], Hash) or {}
    return [fields.get(name) for name in arguments[1:]]


@command("hgetall", 1)
def hgetall(engine: Engine, arguments: list[bytes]) -> Reply:
    return dict(engine.data.find(arguments[0], Hash) or {})


@command("hkeys", 1)
def hkeys(engine: Engine, arguments: list[bytes]) -> Reply:
    return list(engine.data.find(arguments[0], Hash) or {})


@command("hvals", 1)
def hvals(engine: Engine, arguments: list[bytes]) -> Reply:
    return list((engine.data.find(arguments[0], Hash) or {}).values())


@command("hexists", 2)
def hexists(engine: Engine, arguments: list[bytes]) -> Reply:
    return int(arguments[1] in (engine.data.find(arguments[0], Hash) or {}))


@command("hlen", 1)
def hlen(engine: Engine, arguments: list[bytes]) -> Reply:
    return len(engine.data.find(arguments[0], Hash) or {})


@command("hdel", 2, -1)
def hdel(engine: Engine, arguments: list[bytes]) -> Reply:
    fields = engine.data.find(arguments[0], Hash)
    if fields is None:
        return 0
    gone = sum(fields.pop(name, None) is not None for name in arguments[1:])
    engine.data.settle(arguments[0])
    return gone


@command("hincrby", 3)
def hincrby(engine: Engine, arguments: list[bytes]) -> Reply:
    key, name, text = arguments
    amount = integer(text)
    fields = engine.data.find(key, Hash) or Hash()
    total = _add(fields.get(name), amount, "ERR hash value is not an integer")
    engine.data.open(key, Hash)[name] = b"%d" % total
    return total


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


@command("scard", 1)
def scard(engine: Engine, arguments: list[bytes]) -> Reply:
    return len(engine.data.find(arguments[0], Set) or {})
