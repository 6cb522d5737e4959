"""Sequences of commands for comparing two servers: mostly sensible, partly wrong, over few keys, so that they meet."""

from hypothesis import strategies as st

Request = list[bytes]
Requests = st.SearchStrategy[Request]

FIELDS = st.sampled_from([b"f", b"g", b"h", b"a b"])
VALUES = st.sampled_from(
    [b"", b"1", b"-7", b"x", b"\xff\x00\r\n", b"9223372036854775807", b"3.5", b"01", b" 1", b"long" * 40]
)
INTEGERS = st.sampled_from([b"0", b"1", b"-1", b"2", b"5", b"-3", b"100", b"+1", b"1.0", b"x", b"9223372036854775807"])
SCORES = st.sampled_from([b"0", b"1", b"-2.5", b"3", b"0.1", b"1e3", b"inf", b"-inf", b"nan", b"x", b"1790000000123"])
BOUNDS = st.sampled_from([b"-inf", b"+inf", b"(1", b"1", b"3", b"(0.1", b"1000", b"x"])
IDS = st.sampled_from([b"1-0", b"2-0", b"3-0", b"3-1", b"5", b"9-9", b"0-0", b"0", b"x", b"7-x", b"12-0", b"20-0"])
RANGE_IDS = st.one_of(IDS, st.sampled_from([b"-", b"+"]))
FAR_MS = st.sampled_from([b"100000", b"250000", b"0", b"-1", b"x"])

KINDS = {"text": b"t", "hash": b"h", "set": b"s", "sorted": b"z", "stream": b"x"}


def key(kind: str) -> st.SearchStrategy[bytes]:
    """Return one of two keys of this kind, seldom one of another."""
    own = [KINDS[kind] + number for number in (b"1", b"2")]
    others = [letter + b"1" for letter in KINDS.values()]
    return st.one_of(st.sampled_from(own), st.sampled_from(own), st.sampled_from(own), st.sampled_from(others))


any_key = st.sampled_from([letter + number for letter in KINDS.values() for number in (b"1", b"2")])


def call(name: str, *parts: st.SearchStrategy[bytes] | bytes) -> Requests:
    """Return requests with these arguments."""
    strategies = [st.just(part) if isinstance(part, bytes) else part for part in parts]
    return st.tuples(*strategies).map(lambda arguments: [name.encode(), *arguments])


def more(head: Requests, *tail: st.SearchStrategy[bytes], most: int = 3) -> Requests:
    """Return requests with `tail` repeated once to `most` times behind `head`."""
    pieces = st.lists(st.tuples(*tail), min_size=1, max_size=most)
    return st.tuples(head, pieces).map(lambda pair: [*pair[0], *(item for piece in pair[1] for item in piece)])


def options(head: Requests, *choices: list[bytes]) -> Requests:
    """Return requests with one of these options, or none."""
    return st.tuples(head, st.sampled_from([[], *choices])).map(lambda pair: [*pair[0], *pair[1]])


TEXT = [
    call("GET", key("text")),
    call("SET", key("text"), VALUES),
    call("SET", key("text"), VALUES, st.sampled_from([b"PX", b"px", b"what"]), FAR_MS),
]
KEYS = [
    more(call("UNLINK"), any_key),
    more(call("EXISTS"), any_key),
    call("PEXPIRE", any_key, FAR_MS),
    call("PEXPIREAT", any_key, st.sampled_from([b"1", b"9000000000000", b"x"])),
    call("EXPIREAT", any_key, st.sampled_from([b"1", b"9000000000", b"x"])),
    call("PTTL", any_key),
    call("SCAN", b"0", b"MATCH", st.sampled_from([b"*", b"t*", b"?1", b"[hz]*", b"\\t1", b"t1"]), b"COUNT", b"1000"),
]
HASHES = [
    more(call("HSET", key("hash")), FIELDS, VALUES),
    call("HGET", key("hash"), FIELDS),
    more(call("HMGET", key("hash")), FIELDS),
    call("HVALS", key("hash")),
    more(call("HDEL", key("hash")), FIELDS),
]
SETS = [
    more(call("SADD", key("set")), VALUES),
    more(call("SREM", key("set")), VALUES),
    call("SMEMBERS", key("set")),
    call("SISMEMBER", key("set"), VALUES),
]
SORTED = [
    more(call("ZADD", key("sorted")), SCORES, FIELDS),
    more(call("ZREM", key("sorted")), FIELDS),
    call("ZSCORE", key("sorted"), FIELDS),
    call("ZRANGEBYSCORE", key("sorted"), BOUNDS, BOUNDS),
    call("ZREMRANGEBYSCORE", key("sorted"), BOUNDS, BOUNDS),
    options(call("ZREVRANGE", key("sorted"), INTEGERS, INTEGERS), [b"WITHSCORES"], [b"what"]),
]
STREAMS = [
    more(call("XADD", key("stream"), b"MAXLEN", INTEGERS, IDS), FIELDS, VALUES),
    call("XTRIM", key("stream"), st.sampled_from([b"MAXLEN", b"MINID", b"what"]), st.one_of(INTEGERS, IDS)),
    call("XLEN", key("stream")),
    options(call("XRANGE", key("stream"), RANGE_IDS, RANGE_IDS), [b"COUNT", b"2"], [b"COUNT", b"0"], [b"COUNT"]),
    options(call("XREVRANGE", key("stream"), RANGE_IDS, RANGE_IDS), [b"COUNT", b"1"], [b"what", b"1"]),
]
CHANNELS = [
    more(call("SUBSCRIBE"), st.sampled_from([b"c1", b"c2"]), most=2),
    more(call("UNSUBSCRIBE"), st.sampled_from([b"c1", b"c2"]), most=2),
    call("UNSUBSCRIBE"),
    call("PUBLISH", st.sampled_from([b"c1", b"c2"]), VALUES),
]
OTHERS = [
    call("PING"),
    call("PING", VALUES),
    call("CONFIG", b"GET", b"appendfsync"),
    call("WHAT", VALUES),
]

SCRIPTS = (
    b"return {1, 'two', false, true, 3.99, {ok='fine'}, {1, {2}}, nil, 5}",
    b"return redis.call('GET', KEYS[1])",
    b"return redis.call('ZREVRANGE', KEYS[1], 0, -1, 'WITHSCORES')",
    b"return redis.call('XRANGE', KEYS[1], '-', '+')",
    b"return {err = 'MINE is the error'}",
    b"return redis.call('SET', KEYS[1], 0.1 + 5)",
    b"redis.call('SET', KEYS[1], 7) return redis.call('GET', KEYS[1])",
    b"return tostring(1790000000123456) .. ' ' .. tonumber('0x10') .. string.format(' %.0f', 2^53)",
    b"return {type(redis.call('GET', KEYS[1])), type(redis.call('SMEMBERS', KEYS[1])), #ARGV, #KEYS}",
    b"return cmsgpack.unpack(cmsgpack.pack({1, 'x', {2, 3}}))",
    b"return redis.call('PUBLISH', 'c1', ARGV[1])",
    b"return unknown_name",
    b"new_global = 1",
    b"return redis.call('NOPE', 1)",
    b"return redis.call('GET')",
    b"return redis.call('SUBSCRIBE', 'c1')",
    b"return redis.call('GET', {})",
    b"return redis.call('HSET', KEYS[1], 'n', 12345678901)",
    b"this is no Lua",
    b"error('mine')",
)
EVALUATIONS = [
    st.tuples(st.sampled_from(SCRIPTS), any_key, VALUES).map(lambda p: [b"EVAL", p[0], b"1", p[1], p[2]]),
    call("EVALSHA", b"0" * 40, b"0"),
    call("EVAL", b"return 1", INTEGERS),
]

GROUPS = (TEXT, KEYS, HASHES, SETS, SORTED, STREAMS, CHANNELS, OTHERS, EVALUATIONS)

sensible = st.one_of(*(st.one_of(*group) for group in GROUPS))
spoiled = st.tuples(sensible, st.integers(0, 3), VALUES).map(lambda p: [*p[0][:-1][: p[1] + 1], p[2]])
requests = st.lists(st.one_of(sensible, sensible, sensible, sensible, spoiled), min_size=1, max_size=25)
