"""Commands on sorted sets and streams."""

from tests.simulation.engine import Engine, command
from tests.simulation.keyspace import SortedSet, Stream, StreamId
from tests.simulation.resp import SYNTAX, Refusal, Reply, Scores, double, integer

LAST: StreamId = (2**64 - 1, 2**64 - 1)

# --- sorted sets ------------------------------------------------------------------------------------------------------


@command("zadd", 3, -1)
def zadd(engine: Engine, arguments: list[bytes]) -> Reply:
    key, *rest = arguments
    if len(rest) % 2:
        raise Refusal(SYNTAX)
    scores = {member: double(score) for score, member in zip(rest[::2], rest[1::2], strict=True)}
    members = engine.data.open(key, SortedSet)
    before = len(members)
    members.update(scores)
    return len(members) - before


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


@command("zrangebyscore", 3)
def zrangebyscore(engine: Engine, arguments: list[bytes]) -> Reply:
    return [member for member, _ in _between(engine, *arguments)]


@command("zremrangebyscore", 3)
def zremrangebyscore(engine: Engine, arguments: list[bytes]) -> Reply:
    gone = [member for member, _ in _between(engine, *arguments)]
    return zrem(engine, [arguments[0], *gone]) if gone else 0


@command("zrevrange", 3, 4)
def zrevrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, start, stop, *options = arguments
    if options and options[0].upper() != b"WITHSCORES":
        raise Refusal(SYNTAX)
    first, last = integer(start), integer(stop)
    found = _ranked(engine, key)[::-1]
    first, last = (end + len(found) if end < 0 else end for end in (first, last))
    found = found[max(first, 0) : max(last + 1, 0)]
    return Scores([member, score] for member, score in found) if options else [member for member, _ in found]


# --- streams ----------------------------------------------------------------------------------------------------------


def stream_id(text: bytes, missing: int = 0) -> StreamId:
    """Read `ms-seq`, or `ms` alone, whose sequence is then `missing`. Raises Refusal."""
    refusal = Refusal("ERR Invalid stream ID specified as stream command argument")
    milliseconds, dash, sequence = text.lstrip(b" ").removeprefix(b"+").partition(b"-")
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
    """Append an entry, and keep the newest ones: `key MAXLEN count id field value …`."""
    key, option, count, text, *fields = arguments
    if option.upper() != b"MAXLEN":
        raise Refusal("ERR the simulated Redis knows XADD with MAXLEN only")
    most, entry = _most(count), stream_id(text)
    if not fields or len(fields) % 2:
        raise Refusal("ERR wrong number of arguments for 'xadd' command")
    if entry == (0, 0):
        raise Refusal("ERR The ID specified in XADD must be greater than 0-0")
    known = engine.data.find(key, Stream) or Stream()
    if entry <= known.last:
        raise Refusal("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    stream = engine.data.open(key, Stream)
    stream.entries[entry] = fields
    stream.last = entry
    _drop(stream, _beyond(stream, most))
    return written_id(entry)


def _most(text: bytes) -> int:
    most = integer(text)
    if most < 0:
        raise Refusal("ERR The MAXLEN argument must be >= 0.")
    return most


def _beyond(stream: Stream, most: int) -> list[StreamId]:
    return list(stream.entries)[: max(0, len(stream.entries) - most)]


def _drop(stream: Stream, gone: list[StreamId]) -> int:
    for entry in gone:
        del stream.entries[entry]
    return len(gone)


@command("xtrim", 3)
def xtrim(engine: Engine, arguments: list[bytes]) -> Reply:
    key, option, threshold = arguments
    if option.upper() == b"MAXLEN":
        most = _most(threshold)
        stream = engine.data.find(key, Stream) or Stream()
        return _drop(stream, _beyond(stream, most))
    if option.upper() == b"MINID":
        least = stream_id(threshold)
        stream = engine.data.find(key, Stream) or Stream()
        return _drop(stream, [entry for entry in stream.entries if entry < least])
    raise Refusal(SYNTAX)


@command("xlen", 1)
def xlen(engine: Engine, arguments: list[bytes]) -> Reply:
    stream = engine.data.find(arguments[0], Stream)
    return 0 if stream is None else len(stream.entries)


def _end(text: bytes, missing: int) -> StreamId:
    """Read one end of a range of ids."""
    ends = {b"-": (0, 0), b"+": LAST}
    return ends[text] if text in ends else stream_id(text, missing)


def _entries(engine: Engine, key: bytes, low: bytes, high: bytes, options: list[bytes], *, backwards: bool) -> Reply:
    first, last = _end(low, 0), _end(high, LAST[1])
    count: int | None = None
    if options:
        if options[0].upper() != b"COUNT" or len(options) != 2:
            raise Refusal(SYNTAX)
        count = max(0, integer(options[1]))
    stream = engine.data.find(key, Stream)
    if stream is None:
        return []
    if count == 0:
        return None
    found = [[written_id(entry), fields] for entry, fields in stream.entries.items() if first <= entry <= last]
    return (found[::-1] if backwards else found)[:count]


@command("xrange", 3, 5)
def xrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, low, high, *options = arguments
    return _entries(engine, key, low, high, options, backwards=False)


@command("xrevrange", 3, 5)
def xrevrange(engine: Engine, arguments: list[bytes]) -> Reply:
    key, high, low, *options = arguments
    return _entries(engine, key, low, high, options, backwards=True)
