"""Settings as they would stand in a file, for showing them."""

from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec

from notifyd.settings.values import (
    WITHHELD,
    Address,
    Bytes,
    Network,
    Seconds,
    Secret,
    Url,
    format_duration,
    format_size,
    parse_duration,
)
from protocol.topics import Pattern


def written(settings: msgspec.Struct, *, reveal: bool = False) -> dict[str, Any]:
    """Return the settings, or a table of them, as JSON has them: durations and sizes as text, None for what is not set.

    Secrets are withheld, and the credentials of URLs left out, unless `reveal` says otherwise.
    """
    return {
        field.encode_name: written_value(getattr(settings, field.name), field.type, reveal=reveal)
        for field in msgspec.structs.fields(type(settings))
    }


def written_value(value: Any, kind: Any, *, reveal: bool = False) -> Any:
    """Return the value of one setting, of this type, likewise."""
    match value:
        case msgspec.Struct():
            return written(value, reveal=reveal)
        case tuple():
            return [written_value(item, Any, reveal=reveal) for item in value]
        case Secret() | Url() if reveal:
            return value.reveal()
        case Secret():
            return WITHHELD
        case None if Address in get_args(kind):
            return ""  # a listener that is off
        case Address() | Network() | Path() | Url():
            return str(value)
        case Pattern():
            return value.text
        case Enum():
            return value.value
    return _write_quantity(value, kind)


def _write_quantity(value: Any, kind: Any) -> Any:
    kinds = (kind, *get_args(kind))
    if Seconds in kinds:
        return _write_duration(value)
    return format_size(value) if Bytes in kinds else value


def _write_duration(duration_s: float) -> str:
    """Write seconds so that they are read back the same, to the microsecond that a file can have."""
    text = format_duration(duration_s)
    return text if parse_duration(text) == duration_s else f"{duration_s:f}s"
