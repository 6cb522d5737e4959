"""Records that nodes leave in Redis for each other, some of them perhaps of another version."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

Record = TypeVar("Record")


def readable(decode: Callable[[bytes], Record], records: Iterable[bytes]) -> Iterator[Record]:
    """Decode records, leaving out those that are none of this version's."""
    for record in records:
        try:
            yield decode(record)
        except msgspec.DecodeError:
            continue
