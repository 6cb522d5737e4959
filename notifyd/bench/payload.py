"""What a load publishes: requests made once, of which only an id and a time stamp change.

The data is a text that is the same bytes in JSON and MessagePack: a mark that nothing else holds, the time as 20
digits (nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share), and padding. So what comes back can be
counted, and its age read, without parsing it.
"""

from notifyd.bench.dialect import Dialect
from protocol.framing import Encoding
from protocol.messages import Publish

MARK = b"<" + b"~" * 15
"""It begins with a byte that is nowhere else in it: two never overlap, and counting them is exact.

Long, and of two bytes that are rare elsewhere: a search skips most of the text (65 ns a message; eight various letters
took 190).
"""

STAMP_BYTES = 20
LEAST_PAYLOAD_BYTES = len(MARK) + STAMP_BYTES

FIRST_ID = 1_000_000_000
"""From here to 2^32 an id takes as many bytes, in JSON (10 digits) and in MessagePack (uint32)."""


class PublishRequest:
    """The bytes of a publish on one topic; `payload_bytes` is the length of the text that is its data."""

    def __init__(self, dialect: Dialect, topic: str, payload_bytes: int) -> None:
        text = (MARK + b"0" * STAMP_BYTES).ljust(payload_bytes, b".").decode()
        self._bytes = bytearray(dialect.request(Publish(topic=topic, data=text, id=FIRST_ID)))
        self._is_json = dialect.form.encoding is Encoding.JSON
        self._id = self._bytes.index(self._id_bytes(FIRST_ID))
        self._stamp = self._bytes.index(MARK) + len(MARK)

    def _id_bytes(self, request_id: int) -> bytes:
        return b"%d" % request_id if self._is_json else request_id.to_bytes(4, "big")

    def make(self, request_id: int, stamp_ns: int) -> bytes:
        """Return the request with this id (FIRST_ID or above) and time stamp."""
        written = self._id_bytes(request_id)
        self._bytes[self._id : self._id + len(written)] = written
        self._bytes[self._stamp : self._stamp + STAMP_BYTES] = b"%020d" % stamp_ns
        return bytes(self._bytes)
