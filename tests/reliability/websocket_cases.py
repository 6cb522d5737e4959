"""The conformance table: what the Autobahn suite asks of a server, as data. The numbers are its chapters.

Limits are scaled to a payload limit of 64 KiB; chapters 12 and 13 (compression) shrink to one case: none is offered.
"""

import struct
from collections.abc import Iterable

from tests.reliability.utf8_cases import GREEK, INVALID, VALID
from tests.reliability.websocket_driver import NO_CODE, Case
from tests.unit.transport.client_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, unmasked

LIMIT_BYTES = 64 * 1024
BINARY_LIMIT_BYTES = LIMIT_BYTES + 16
MAX_FRAGMENTS = 1024

SIZES = (0, 125, 126, 127, 128, 65535, 65536)
HELLO = b"Hello, world!"

Table = dict[str, Case]


def chopped(data: bytes, size: int = 1) -> tuple[bytes, ...]:
    """Cut into writes of `size` bytes."""
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def fragments(opcode: int, parts: Iterable[bytes], *, finished: bool = True) -> bytes:
    """A message in these fragments."""
    parts = list(parts)
    last = len(parts) - 1 if finished else len(parts)
    return b"".join(
        frame(CONTINUATION if at else opcode, part, final=at == last, reserved=0) for at, part in enumerate(parts)
    )


def closing(code: int, reason: bytes = b"") -> bytes:
    """A Close frame."""
    return frame(CLOSE, struct.pack(">H", code) + reason)


def framing() -> Table:
    """Chapter 1: payloads of every length form, however the frame is cut."""
    table: Table = {}
    for word, opcode, letter in (("text", TEXT, b"*"), ("binary", BINARY, b"\xfe")):
        for size in SIZES:
            payload = letter * size
            data = frame(opcode, payload)
            table[f"1 {word} of {size}"] = Case((data,), ((opcode, payload),))
            table[f"1 {word} of {size} chopped"] = Case(chopped(data, 997), ((opcode, payload),))
            if size < 200:
                table[f"1 {word} of {size} byte by byte"] = Case(chopped(data), ((opcode, payload),))
    table["1 unmasked text"] = Case((unmasked(TEXT, HELLO),), close=1002)
    table["1 unmasked ping"] = Case((unmasked(PING, HELLO),), close=1002)
    table["1 length not in the shortest form, 16 bits"] = Case((frame(TEXT, HELLO, form=2),), close=1002)
    table["1 length not in the shortest form, 64 bits"] = Case((frame(BINARY, b"a" * 300, form=8),), close=1002)
    table["1 negative length"] = Case((b"\x82\xff\x80" + bytes(11),), close=1002)
    return table


def pings() -> Table:
    """Chapter 2: pings and pongs."""
    table = {
        f"2 ping with {name}": Case((frame(PING, payload),), ((PONG, payload),))
        for name, payload in {
            "nothing": b"",
            "text": HELLO,
            "bytes": b"\0\xff\xfe\xfd\xfc\xfb\0\xff",
            "125": b"\xfe" * 125,
        }.items()
    }
    table["2 ping of 126"] = Case((frame(PING, b"\xfe" * 126),), close=1002)
    table["2 pong of 126"] = Case((frame(PONG, b"\xfe" * 126),), close=1002)
    table["2 ping of 125 byte by byte"] = Case(chopped(frame(PING, b"\xfe" * 125)), ((PONG, b"\xfe" * 125),))
    table["2 unsolicited pong"] = Case((frame(PONG), frame(PING)), ((PONG, b""),))
    table["2 unsolicited pong with payload"] = Case((frame(PONG, HELLO), frame(PING, b"a")), ((PONG, b"a"),))
    ten = [b"payload-%d" % number for number in range(10)]
    replies = tuple((PONG, payload) for payload in ten)
    data = b"".join(frame(PING, payload) for payload in ten)
    table["2 ten pings in one write"] = Case((data,), replies)
    table["2 ten pings in ten writes"] = Case(tuple(frame(PING, payload) for payload in ten), replies)
    table["2 ten pings byte by byte"] = Case(chopped(data), replies)
    return table


def reserved() -> Table:
    """Chapters 3 and 4: reserved bits and opcodes."""
    good, echoed = frame(TEXT, HELLO), ((TEXT, HELLO),)
    table = {f"3 reserved bits {bits}": Case((frame(TEXT, HELLO, reserved=bits),), close=1002) for bits in range(1, 8)}
    table["3 good, reserved bit, ping in one write"] = Case(
        (good + frame(TEXT, HELLO, reserved=2) + frame(PING),), echoed, 1002
    )
    table["3 good, reserved bit, ping chopped"] = Case(
        (good, *chopped(frame(BINARY, HELLO, reserved=3)), frame(PING)), echoed, 1002
    )
    table["3 reserved bit in a ping"] = Case((frame(PING, HELLO, reserved=6),), close=1002)
    table["3 reserved bits in a Close"] = Case((frame(CLOSE, b"\x03\xe8", reserved=7),), close=1002)
    table["3 reserved bit in a continuation"] = Case(
        (frame(TEXT, final=False) + frame(CONTINUATION, reserved=4),), close=1002
    )
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        table[f"4 opcode {opcode}"] = Case((frame(opcode),), close=1002)
        table[f"4 opcode {opcode} with payload after a good message"] = Case(
            (good + frame(opcode, HELLO) + frame(PING),), echoed, 1002
        )
    return table


def fragmentation() -> Table:
    """Chapter 5: fragments, control frames between them, continuations of nothing."""
    parts = [b"fragment1", b"fragment2"]
    whole, echoed = b"".join(parts), ((TEXT, b"".join(parts)),)
    message = fragments(TEXT, parts)
    first, last = frame(TEXT, parts[0], final=False), frame(CONTINUATION, parts[1])
    between = first + frame(PING, b"ping") + last
    with_ping = ((PONG, b"ping"), (TEXT, whole))
    table = {
        "5 fragmented ping": Case((frame(PING, parts[0], final=False) + last,), close=1002),
        "5 fragmented pong": Case((frame(PONG, parts[0], final=False) + last,), close=1002),
        "5 fragmented Close": Case((frame(CLOSE, b"\x03\xe8", final=False),), close=1002),
        "5 two fragments in one write": Case((message,), echoed),
        "5 two fragments in two writes": Case((first, last), echoed),
        "5 two fragments byte by byte": Case(chopped(message), echoed),
        "5 two binary fragments": Case((fragments(BINARY, parts),), ((BINARY, whole),)),
        "5 ping between": Case((between,), with_ping),
        "5 ping between, separate writes": Case((first, frame(PING, b"ping"), last), with_ping),
        "5 ping between byte by byte": Case(chopped(between), with_ping),
        "5 pong between": Case((first, frame(PONG, b"pong"), last), echoed),
        "5 final continuation of nothing": Case((last + frame(TEXT, HELLO),), close=1002),
        "5 final continuation of nothing, byte by byte": Case(chopped(last), close=1002),
        "5 continuation of nothing": Case((frame(CONTINUATION, HELLO, final=False) + frame(TEXT, HELLO),), close=1002),
        "5 empty continuation of nothing": Case((frame(CONTINUATION),), close=1002),
        "5 continuation after the end": Case((message + frame(CONTINUATION, HELLO, final=False),), echoed, 1002),
        "5 message inside a message": Case((first, frame(TEXT, HELLO)), close=1002),
        "5 binary inside a text": Case((first + frame(BINARY, HELLO, final=False),), close=1002),
        "5 Close between": Case((first + closing(1000),), close=1000),
    }
    five = [b"fragment%d" % number for number in range(5)]
    pieces = [frame(CONTINUATION if at else TEXT, part, final=at == 4) for at, part in enumerate(five)]
    writes = (*pieces[:2], frame(PING, b"one"), *pieces[2:4], frame(PING, b"two"), pieces[4])
    replies = ((PONG, b"one"), (PONG, b"two"), (TEXT, b"".join(five)))
    table["5 five fragments with pings"] = Case(writes, replies)
    table["5 five fragments with pings in one write"] = Case((b"".join(writes),), replies)
    return table


def utf8() -> Table:
    """Chapter 6: text is valid UTF-8, judged as soon as it can be."""
    table = {
        "6 three empty fragments": Case((fragments(TEXT, [b"", b"", b""]),), ((TEXT, b""),)),
        "6 middle fragment not empty": Case((fragments(TEXT, [b"", HELLO, b""]),), ((TEXT, HELLO),)),
        "6 invalid bytes in a binary message": Case((frame(BINARY, b"\xff\xfe"),), ((BINARY, b"\xff\xfe"),)),
    }
    for name, payload in VALID.items():
        table[f"6 valid: {name}"] = Case((frame(TEXT, payload),), ((TEXT, payload),))
        table[f"6 valid in fragments of a byte: {name}"] = Case(
            (fragments(TEXT, chopped(payload)),), ((TEXT, payload),)
        )
    for name, payload in INVALID.items():
        table[f"6 invalid: {name}"] = Case((frame(TEXT, payload),), close=1007)
        table[f"6 invalid in fragments of a byte: {name}"] = Case((fragments(TEXT, chopped(payload)),), close=1007)
    good, bad = GREEK, b"\xf4\x90\x80\x80"
    never_finished = frame(TEXT, good + bad + b"edited")
    table["6 fail fast: invalid fragment, message open"] = Case(
        (frame(TEXT, good, final=False), frame(CONTINUATION, bad, final=False)), close=1007
    )
    table["6 fail fast: inside a frame that never ends"] = Case((never_finished[:-6],), close=1007)
    table["6 fail fast: byte by byte"] = Case(chopped(never_finished[:-6]), close=1007)
    table["6 fail fast: cut off at the end"] = Case(
        (frame(TEXT, good + bad[:1], final=False) + frame(CONTINUATION),), close=1007
    )
    return table


VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)


def closes() -> Table:
    """Chapter 7: the closing handshake."""
    good, echoed, close = frame(TEXT, HELLO), ((TEXT, HELLO),), closing(1000)
    long = b"*" * 60000
    table = {
        "7 message then Close": Case((good, close), echoed, 1000),
        "7 message and Close in one write": Case((good + close,), echoed, 1000),
        "7 two Closes": Case((close, close), close=1000),
        "7 two Closes in one write": Case((close + closing(4000),), close=1000),
        "7 ping after Close": Case((close + frame(PING),), close=1000),
        "7 message after Close": Case((close + good,), close=1000),
        "7 nonsense after Close": Case((close + frame(3) + b"\xff" * 50,), close=1000),
        "7 Close between fragments, then the rest": Case(
            (frame(TEXT, final=False) + close + frame(CONTINUATION),), close=1000
        ),
        "7 long message, Close, ping": Case((frame(TEXT, long) + close + frame(PING),), ((TEXT, long),), 1000),
        "7 Close byte by byte": Case(chopped(closing(1000, b"bye")), close=1000),
        "7 Close without code": Case((frame(CLOSE),), close=NO_CODE),
        "7 Close of one byte": Case((frame(CLOSE, b"\x03"),), close=1002),
        "7 Close with reason": Case((closing(1000, b"Hello World!"),), close=1000),
        "7 Close with a reason of 123 bytes": Case((closing(1000, b"*" * 123),), close=1000),
        "7 Close with a reason of 124 bytes": Case((closing(1000, b"*" * 124),), close=1002),
        "7 Close with a reason that is no UTF-8": Case(
            (closing(1000, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80"),), close=1007
        ),
        "7 Close with a reason cut inside a character": Case((closing(1000, "é".encode()[:1]),), close=1007),
    }
    table |= {f"7 Close with code {code}": Case((closing(code),), close=code) for code in VALID_CODES}
    table |= {
        f"7 Close with code {code} and reason": Case((closing(code, b"why"),), close=code)
        for code in (1000, 3000, 4999)
    }
    table |= {f"7 Close with invalid code {code}": Case((closing(code),), close=1002) for code in INVALID_CODES}
    return table


def limits() -> Table:
    """Chapters 9 and 10: sizes up to the limit and above it, many fragments, many messages; 12: no compression."""
    text, binary = b"*" * LIMIT_BYTES, b"\xfe" * BINARY_LIMIT_BYTES
    table = {
        "9 text of the limit": Case((frame(TEXT, text),), ((TEXT, text),)),
        "9 binary of the limit and a header": Case((frame(BINARY, binary),), ((BINARY, binary),)),
        "9 text above the limit": Case((frame(TEXT, text + b"*"),), close=1009),
        "9 binary above the limit": Case((frame(BINARY, binary + b"*"),), close=1009),
        "9 text above the limit in fragments": Case((fragments(TEXT, [text, b"*"]),), close=1009),
        "9 binary above the limit in fragments": Case((fragments(BINARY, [binary, b"*"], finished=False),), close=1009),
        "9 above the limit in many fragments": Case((fragments(TEXT, [b"*" * 100] * 656),), close=1009),
        "9 1 TiB announced": Case((b"\x81\xff" + struct.pack(">Q", 2**40),), close=1009),
        "9 1 TiB announced in a fragment": Case(
            (frame(BINARY, final=False) + b"\x80\xff" + struct.pack(">Q", 2**40),), close=1009
        ),
        "9 1024 fragments": Case((fragments(BINARY, [b"*"] * MAX_FRAGMENTS),), ((BINARY, b"*" * MAX_FRAGMENTS),)),
        "9 1024 empty fragments": Case((fragments(TEXT, [b""] * MAX_FRAGMENTS),), ((TEXT, b""),)),
        "9 1025 fragments": Case((fragments(BINARY, [b"*"] * (MAX_FRAGMENTS + 1)),), close=1008),
        "9 1025 empty fragments": Case((fragments(TEXT, [b""] * (MAX_FRAGMENTS + 1), finished=False),), close=1008),
        "9 500 messages in one write": Case((frame(TEXT, HELLO) * 500,), ((TEXT, HELLO),) * 500),
        "9 500 binary messages of 65 bytes": Case((frame(BINARY, b"*" * 65),) * 500, ((BINARY, b"*" * 65),) * 500),
        "12 compression was not agreed on": Case((frame(TEXT, HELLO, reserved=4),), close=1002),
    }
    for size in (64, 256, 1024, 4096, 16384):
        parts = chopped(text, size)
        table[f"9 text of the limit in fragments of {size}"] = Case((fragments(TEXT, parts),), ((TEXT, text),))
        table[f"9 text of the limit in writes of {size}"] = Case(chopped(frame(TEXT, text), size), ((TEXT, text),))
    return table


CASES: Table = framing() | pings() | reserved() | fragmentation() | utf8() | closes() | limits()
