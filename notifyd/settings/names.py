"""The keys a configuration may have, read off the structs, and the nearest of them to one that it may not have."""

import difflib
import json
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
from msgspec import Struct

from notifyd.settings.types import Settings


def children(kind: Any) -> dict[str, Any]:
    """Return the keys and types of a table, an optional table or a list of tables; nothing for other types."""
    table = _table(kind)
    return {} if table is None else {field.encode_name: field.type for field in msgspec.structs.fields(table)}


def _table(kind: Any) -> type[Struct] | None:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    return next((table for part in get_args(kind) if (table := _table(part)) is not None), None)


def kind_at(path: list[str | int]) -> Any:
    """Return the type of the setting at `path`, None where there is none; numbers in the path are places in lists."""
    kind: Any = Settings
    for step in path:
        kind = children(kind).get(step) if isinstance(step, str) else kind
    return kind


def dotted(path: list[str | int]) -> str:
    """Write a path as a person would, on one line: `auth.keys[0].kid`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_visible(step)}" for step in path).removeprefix(".")


def _visible(name: str) -> str:
    """Write a name that has line breaks and the like as TOML would: quoted."""
    return name if name.isprintable() else json.dumps(name)


def known_keys(kind: Any = Settings, prefix: str = "") -> Iterator[str]:
    """Yield every key, tables included, dotted."""
    for name, child in children(kind).items():
        yield prefix + name
        yield from known_keys(child, f"{prefix}{name}.")


def unknown_keys(raw: dict[str, Any]) -> Iterator[list[str | int]]:
    """Yield the path of every key in `raw` that no table knows."""
    yield from _unknown(raw, Settings, [])


def _unknown(raw: Any, kind: Any, path: list[str | int]) -> Iterator[list[str | int]]:
    known = children(kind)
    if isinstance(raw, list) and known:
        for place, item in enumerate(raw):
            yield from _unknown(item, kind, [*path, place])
    elif isinstance(raw, dict) and known:
        for name, value in raw.items():
            if name in known:
                yield from _unknown(value, known[name], [*path, name])
            else:
                yield [*path, name]


def nearest_key(path: list[str | int]) -> str:
    """Return the known key that was most likely meant: in the same table, else anywhere."""
    *table, name = path
    siblings = children(kind_at(table))
    if close := difflib.get_close_matches(str(name), siblings, n=1, cutoff=0.6):
        return dotted([*table, close[0]])
    everything = list(known_keys())
    for key in everything:
        if key.rpartition(".")[2] == name:
            return key
    asked = dotted([step for step in path if isinstance(step, str)])
    return difflib.get_close_matches(asked, everything, n=1, cutoff=0.0)[0]
