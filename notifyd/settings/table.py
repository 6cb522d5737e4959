"""Every setting as a table: `python -m notifyd.settings.table` writes `spec/settings.md`.

A test fails while that is not fresh.
"""

import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import msgspec

from notifyd.settings.meanings import MEANINGS
from notifyd.settings.names import children
from notifyd.settings.types import FIXED_SECTIONS, Settings
from notifyd.settings.values import Address, Bytes, Network, Seconds, Secret, Url
from notifyd.settings.written import written_value
from protocol.topics import Pattern

SETTINGS_FILE = "settings.md"

_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Seconds: "duration",
    Bytes: "size",
    Address: "HOST:PORT",
    Network: "network, such as `10.0.0.0/8`",
    Path: "path of a file",
    Pattern: "topic pattern",
    Secret: "secret",
    Url: "URL",
}


def settings_text() -> str:
    """Return the content of `spec/settings.md`."""
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(Settings, "", "", Settings()))
    return f"""# Settings

Generated from the code by `python -m notifyd.settings.table`. How they are given and changed:
[configuration.md](configuration.md). *live*: changes while the node runs, by SIGHUP or the configuration centre.
*restart*: only the file, the environment and flags have it, and a change needs a restart. Durations are text such as
`"500ms"`, `"30s"` or `"1h"`, sizes are text such as `"64KiB"` or a number of bytes. `[]` marks the entries of a list.
Where no default stands, the setting is off or absent until it is given.

| key | type | default | change | meaning |
| --- | --- | --- | --- | --- |
{rows}"""


def leaf_keys() -> list[str]:
    """Return every key that is no table, dotted; a list of tables has those of its entries."""
    return [row[0].strip("`").replace("[]", "") for row in _rows(Settings, "", "", Settings())]


def _rows(kind: Any, prefix: str, change: str, given: Any) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table. `given` has the defaults; it is None where by default there is no such table."""
    for field in msgspec.structs.fields(_struct_of(kind)):
        held = change or ("restart" if field.name in FIXED_SECTIONS else "live")
        key = f"{prefix}{field.encode_name}"
        if children(field.type):
            inner = getattr(given, field.name, None)
            mark, inner = ("[]", None) if isinstance(inner, tuple) else ("", inner)
            yield from _rows(field.type, f"{key}{mark}.", held, inner)
        else:
            default = getattr(given, field.name, field.default)
            meaning = MEANINGS.get(key.replace("[]", ""), "")
            yield f"`{key}`", _describe(field.type), _write_default(key, default, field.type), held, meaning


def _struct_of(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next(part for part in map(_struct_of, get_args(kind)) if part is not None) if get_args(kind) else None


def _write_default(key: str, default: Any, kind: Any) -> str:
    if key == "node.name":
        return "the host's name and a random part"
    return "" if default in (None, msgspec.NODEFAULT) else f"`{json.dumps(written_value(default, kind))}`"


def _describe(kind: Any) -> str:
    """Say what a setting is made of."""
    if kind in _NAMES:
        return _NAMES[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f'`"{member.value}"`' for member in kind)
    parts = [part for part in get_args(kind) if part is not type(None) and part is not Ellipsis]
    if all(isinstance(part, str) for part in parts):
        return ", ".join(f'`"{part}"`' for part in parts)
    described = _describe(parts[0])
    return f"list of {described}" if getattr(kind, "__origin__", None) is tuple else described


def write_table(spec: Path) -> None:
    """Write the file into the directory `spec`."""
    (spec / SETTINGS_FILE).write_text(settings_text(), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover
    write_table(Path(sys.argv[1] if len(sys.argv) > 1 else "spec"))
