"""Commands on sorted sets and streams."""

from math import inf, isnan

from tests.simulation.engine import Engine, command
from tests.simulation.keyspace import SortedSet, Stream, StreamId
from tests.simulation.resp import SYNTAX, Refusal, Reply, Scores, double, integer

LAST: StreamId = (2**64 - 1, 2**64 - 1)

# --- sorted sets ------------------------------------------------------------------------------------------------------


@command("zadd", 3, -1)
def zadd(engine: Engine, arguments: list[bytes]) -> Reply:
    key, *rest = arguments
    flags: set[bytes] = set()
    while rest and rest[0].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"):
        flags.add(rest.pop(0).upper())
    if not rest or len(rest) % 2:
        raise Refusal(SYNTAX)
    if b"NX" in flags and b"XX" in flags:
        raise Refusal("ERR XX and NX options at the same time are not compatible")
    if {b"GT", b"LT"} <= flags or (b"NX" in flags and flags & {b"GT", b"LT"}):
        raise Refusal("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"INCR" in flags and len(rest) > 2:
        raise Refusal("ERR INCR option supports a single increment-element pair")
    pairs = [(double(score), member) for score, member in zip(rest[::2], rest[1::2], strict=True)]
    members = engine.data.open(key, SortedSet)
    answers = [_put(members, flags, score, member) for score, member in pairs]
    engine.data.settle(key)
    if b"INCR" in flags:
        return members[pairs[0][1]] if answers[0] is not None else None
    added, changed = answers.count("added"), answers.count("changed")
    return added + changed if b"CH" in flags else added


def _put(members: SortedSet, flags: set[bytes], score: float, member: bytes) -> str | None:
    """Set one score; tell what became of it, None where the flags forbade it."""
    known = members.get(member)
    if known is None:
        if b"XX" in flags:
            return None
        members[member] = score
        return "added"
    if b"NX" in flags:
        return None
    score = known + score if b"INCR" in flags else score
    if isnan(score):
        raise Refusal("ERR resulting score is not a number (NaN)")
    if (b"GT" in flags and score <= known) or (b"LT" in flags and score >= known):
        return None
    members[member] = score
    return "changed" if score != known else "same"


@command("zincrby", 3)
def zincrby(engine: Engine, arguments: list[bytes]) -> Reply:
    return zadd(engine, [arguments[0], b"INCR", *arguments[1:]])


@command("zrem", 2, -1)
def zrem(engine: Engine, arguments: list[bytes]) -> Reply:
    members = engine.data.find(arguments[0], SortedSet)
    if members is None:
        return 0
    gone = sum(members.pop(member, None) is not None for member in arguments[1:])
    engine.data.settle(arguments[0])
    return gone


@command("zscore", 2)
def zscore(engine: Engine, arguments: list[bytes]) -> Reply:
    return (engine.data.find(arguments[0], SortedSet) or {}).get(arguments[1])


@command("zcard", 1)
def zcard(engine: Engine, arguments: list[bytes]) -> Reply:
    return len(engine.data.find(arguments[0], SortedSet) or {})


def _ranked(engine: Engine, key: bytes) -> list[tuple[bytes, float]]:
    return (engine.data.find(key, SortedSet) or SortedSet()).ranked()


def _bound(text: bytes) -> tuple[float, bool]:
    """Read one end of a range of scores: the score, and whether it belongs to it itself."""
    refusal = "ERR min or max is not a float"
    belongs = text[:1] != b"("
    return double((text if belongs else text[1:]).lstrip(b" ") or b"0", refusal), belongs


def _between(engine: Engine, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
    (least, least_too), (most, most_too) = _bound(low), _bound(high)
    return [
        (member, score)
        for member, score in _ranked(engine, key)
        if (score > least or (least_too and score == least)) and (score < most or (most_too and score == most))
    ]


def _written(found: list[tuple[bytes, float]], with_scores: bool) -> Reply:
    if with_scores:
        return Scores([member, score] for member, score in found)
    return [member for member, _ in found]


def _limited(found: list[tuple[bytes, float]], options: list[bytes]) -> Reply:
    """Apply `WITHSCORES` and `LIMIT offset count`."""
    with_scores, limit = _options(options)
    if limit is not None:
        offset, count = limit
        found = [] if offset < 0 else found[offset:] if count < 0 else found[offset : offset + count]
    return _written(found, with_scores)


def _options(options: list[bytes]) -> tuple[bool, tuple[int, int] | None]:
    with_scores, limit, rest = False, None, list(options)
    while rest:
        option = rest.pop(0).upper()
        if option == b"WITHSCORES":
            with_scores = True
        elif option == b"LIMIT" and len(rest) >= 2:
            limit = integer(rest.pop(0)), integer(rest.pop(0))
        else:
            raise Refusal(SYNTAX)
    return with_scores, limit


@command("zcount", 3)
def zcount(engine: Engine, arguments: list[bytes]) -> Reply:
    return len(_between(engine, *arguments))


@command("zrangebyscore", 3, -1)
def zrangebyscore(engine: Engine, arguments: list[bytes]) -> Reply:
    key, low, high, *options = arguments
    _options(options)
    return _limited(_between(engine, key, low, high), options)


@command("zrevrangebyscore", 3, -1)
def zrevrangebyscore(engine: Engine, arguments: list[bytes]) -> Reply:
    key, high, low, *options = arguments
    _options(options)
    return _limited(_between(engine, key, low, high)[::-1], options)


@command("zremrangebyscore", 3)
def zremrangebyscore(engine: Engine, arguments: list[bytes]) -> Reply:
    gone = [member for member, _ in _between(engine, *arguments)]
    return zrem(engine, [arguments[0], *gone]) if gone else 0


@command("zrange", 3, -1)
def zrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, start, stop, *options = arguments
    flags = [option.upper() for option in options]
    backwards = b"REV" in flags
    rest = [option for option, flag in zip(options, flags, strict=True) if flag not in (b"REV", b"BYSCORE")]
    if flags.count(b"REV") > 1 or flags.count(b"BYSCORE") > 1:
        raise Refusal(SYNTAX)
    if b"BYSCORE" in flags:
        _options(rest)
        low, high = (stop, start) if backwards else (start, stop)
        found = _between(engine, key, low, high)
        return _limited(found[::-1] if backwards else found, rest)
    if any(option.upper() == b"LIMIT" for option in rest):
        integer_pair = [integer(value) for value in rest[-2:]] if len(rest) >= 3 else None
        raise Refusal(
            SYNTAX
            if integer_pair is None
            else "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
        )
    if any(option.upper() != b"WITHSCORES" for option in rest):
        raise Refusal(SYNTAX)
    first, last = integer(start), integer(stop)
    found = _ranked(engine, key)[:: -1 if backwards else 1]
    first, last = (max(0, len(found) + end) if end < 0 and end != last else end for end in (first, last))
    last = last + len(found) if last < 0 else last
    return _written(found[max(first, 0) : last + 1] if last >= 0 else [], bool(rest))


@command("zrevrange", 3, -1)
def zrevrange(engine: Engine, arguments: list[bytes]) -> Reply:
    if any(option.upper() != b"WITHSCORES" for option in arguments[3:]):
        raise Refusal(SYNTAX)
    return zrange(engine, [*arguments, b"REV"])


# --- streams ----------------------------------------------------------------------------------------------------------


def stream_id(text: bytes, missing: int = 0) -> StreamId:
    """Read `ms-seq`, or `ms` alone, whose sequence is then `missing`. Raises Refusal."""
    refusal = Refusal("ERR Invalid stream ID specified as stream command argument")
    milliseconds, dash, sequence = text.removeprefix(b"+").partition(b"-")
    if not milliseconds.isdigit() or (dash and not sequence.isdigit()):
        raise refusal
    found = (int(milliseconds), int(sequence) if dash else missing)
    if max(found) > LAST[0]:
        raise refusal
    return found


def written_id(entry: StreamId) -> bytes:
    return b"%d-%d" % entry


@command("xadd", 4, -1)
def xadd(engine: Engine, arguments: list[bytes]) -> Reply:
    key, *rest = arguments
    keep, rest, makes = _trimming(rest, adding=True)
    wanted = stream_id(rest[0]) if rest and rest[0] != b"*" else None
    if len(rest) < 3 or len(rest) % 2 == 0:
        raise Refusal("ERR wrong number of arguments for 'xadd' command")
    if wanted == (0, 0):
        raise Refusal("ERR The ID specified in XADD must be greater than 0-0")
    stream = engine.data.find(key, Stream)
    if stream is None and not makes:
        return None
    known = stream or Stream()
    now_ms = engine.data.now_ms()
    entry = wanted or max((now_ms, 0), (known.last[0], known.last[1] + 1))
    if entry <= known.last:
        raise Refusal("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    stream = engine.data.open(key, Stream)
    stream.entries[entry] = rest[1:]
    stream.last = entry
    _trim(stream, keep)
    return written_id(entry)


def _trimming(rest: list[bytes], *, adding: bool) -> tuple[tuple[bytes, bytes] | None, list[bytes], bool]:
    """Split off `NOMKSTREAM` and `MAXLEN|MINID [=|~] threshold`: the trimming, what is left, whether it makes keys."""
    rest, keep, makes = list(rest), None, True
    while rest and rest[0].upper() in (b"NOMKSTREAM", b"MAXLEN", b"MINID"):
        option = rest.pop(0).upper()
        if option == b"NOMKSTREAM" and adding:
            makes = False
            continue
        if rest and rest[0] in (b"=", b"~"):
            rest.pop(0)
        if not rest or keep is not None or option == b"NOMKSTREAM":
            raise Refusal(SYNTAX)
        threshold = rest.pop(0)
        if option == b"MAXLEN" and integer(threshold) < 0:
            raise Refusal("ERR The MAXLEN argument must be >= 0.")
        if option == b"MINID":
            stream_id(threshold)
        keep = (option, threshold)
    return keep, rest, makes


def _trim(stream: Stream, keep: tuple[bytes, bytes] | None) -> int:
    """Drop the oldest entries; return how many."""
    if keep is None:
        return 0
    option, threshold = keep
    if option == b"MAXLEN":
        gone = list(stream.entries)[: max(0, len(stream.entries) - integer(threshold))]
    else:
        gone = [entry for entry in stream.entries if entry < stream_id(threshold)]
    for entry in gone:
        del stream.entries[entry]
    return len(gone)


@command("xtrim", 3, -1)
def xtrim(engine: Engine, arguments: list[bytes]) -> Reply:
    keep, rest, _ = _trimming(arguments[1:], adding=False)
    if keep is None or rest:
        raise Refusal(SYNTAX)
    stream = engine.data.find(arguments[0], Stream)
    return 0 if stream is None else _trim(stream, keep)


@command("xlen", 1)
def xlen(engine: Engine, arguments: list[bytes]) -> Reply:
    stream = engine.data.find(arguments[0], Stream)
    return 0 if stream is None else len(stream.entries)


@command("xdel", 2, -1)
def xdel(engine: Engine, arguments: list[bytes]) -> Reply:
    stream = engine.data.find(arguments[0], Stream)
    if stream is None:
        return 0
    ids = [stream_id(text) for text in arguments[1:]]
    return sum(stream.entries.pop(entry, None) is not None for entry in ids)


def _end(text: bytes, missing: int, step: int) -> StreamId:
    """Read one end of a range of ids; `(` leaves the id itself out."""
    if text in (b"-", b"+"):
        return (0, 0) if text == b"-" else LAST
    if text[:1] != b"(":
        return stream_id(text, missing)
    milliseconds, sequence = stream_id(text[1:], missing)
    if step > 0:
        if (milliseconds, sequence) == LAST:
            raise Refusal("ERR invalid start ID for the interval")
        return (milliseconds, sequence + 1) if sequence < LAST[1] else (milliseconds + 1, 0)
    if (milliseconds, sequence) == (0, 0):
        raise Refusal("ERR invalid end ID for the interval")
    return (milliseconds, sequence - 1) if sequence else (milliseconds - 1, LAST[1])


def _entries(engine: Engine, key: bytes, low: bytes, high: bytes, options: list[bytes], *, backwards: bool) -> Reply:
    first, last = _end(low, 0, 1), _end(high, LAST[1], -1)
    count: float = inf
    while options:
        if options[0].upper() != b"COUNT" or len(options) < 2:
            raise Refusal(SYNTAX)
        count = max(0, integer(options[1]))
        options = options[2:]
    stream = engine.data.find(key, Stream)
    if stream is None:
        return []
    if count == 0:
        return None
    found = [[written_id(entry), fields] for entry, fields in stream.entries.items() if first <= entry <= last]
    found = found[::-1] if backwards else found
    return found if count == inf else found[: int(count)]


@command("xrange", 3, -1)
def xrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, low, high, *options = arguments
    return _entries(engine, key, low, high, options, backwards=False)


@command("xrevrange", 3, -1)
def xrevrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, high, low, *options = arguments
    return _entries(engine, key, low, high, options, backwards=True)
