"""What the configuration centre lays over the settings of every node: a JSON document with the same keys as the file.

It changes by merge patches, and may hold only what can change while a node runs. Source: spec/configuration.md.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from notifyd.errors import ConfigurationError
from notifyd.settings.names import children, dotted, kind_at, nearest_key, unknown_keys
from notifyd.settings.types import FIXED_SECTIONS, Settings
from notifyd.settings.values import Secret

CENTRE = "configuration centre"
"""Where an overlay's values come from, in the words of an error."""

MAX_DEPTH = 16
"""Levels of an overlay; the settings have five."""


class NeedsRestart(ConfigurationError):
    """A setting that names what was opened at the start: only the file, the environment and flags can change it."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with a JSON merge patch applied; neither is changed. Source: RFC 7396 section 2."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def patched(overlay: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an overlay with a merge patch applied, without the tables that nothing is left in."""
    return _tidy(merge_patch(overlay, patch))


def _tidy(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _tidy(value) if isinstance(value, Mapping) else value for name, value in table.items()}
    return {name: value for name, value in kept.items() if value != {}}


def check_overlay(overlay: Any) -> None:
    """Raise ConfigurationError where an overlay, or a patch for one, is not made of keys that can change.

    Also for a secret that stands in it, and for a file whose text would not be kept secret.
    """
    if not isinstance(overlay, Mapping):
        raise ConfigurationError(CENTRE, "", 'expected a table of settings such as {"limits": {"payload": "1MiB"}}')
    if _is_deeper(overlay, MAX_DEPTH):
        raise ConfigurationError(CENTRE, "", "is nested too deeply to be a configuration")
    for path in unknown_keys(dict(overlay)):
        raise ConfigurationError(CENTRE, dotted(path), f"unknown key; the nearest known one is {nearest_key(path)}")
    for section in overlay:
        if section in FIXED_SECTIONS:
            table = overlay[section]
            name = next(iter(table), None) if isinstance(table, Mapping) else None
            reason = "needs a restart: change it in each node's own configuration"
            raise NeedsRestart(CENTRE, dotted([section] if name is None else [section, name]), reason)
    for path, value in _leaves(overlay, []):
        _check_secrecy(path, value)


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether there are more levels than `depth`; without recursion, whatever they are."""
    level = [value]
    for _ in range(depth):
        level = [
            item
            for table in level
            if isinstance(table, Mapping | list)
            for item in (table.values() if isinstance(table, Mapping) else table)
        ]
    return any(isinstance(value, Mapping | list) for value in level)


def _leaves(value: Any, path: list[str | int]) -> Iterator[tuple[list[str | int], Any]]:
    if isinstance(value, Mapping) and not _is_reference(value):
        for name, item in value.items():
            yield from _leaves(item, [*path, name])
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _leaves(item, [*path, place])
    else:
        yield path, value


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"file"} and isinstance(value["file"], str)


def _check_secrecy(path: list[str | int], value: Any) -> None:
    """See spec/decisions/configuration-centre.md."""
    is_secret = _holds_secret(kind_at(path))
    if is_secret and not (value is None or _is_reference(value)):
        reason = 'a secret is not kept here: write it to a file on every node, and give { "file": "path" }'
        raise ConfigurationError(CENTRE, dotted(path), reason)
    if not is_secret and _is_reference(value):
        raise ConfigurationError(CENTRE, dotted(path), "only a secret can come from a file here: give the text itself")


def _holds_secret(kind: Any) -> bool:
    """Whether it is a secret, or a list of nothing else."""
    return kind is Secret or (not children(kind) and any(_holds_secret(part) for part in get_args(kind)))


def live_sections() -> list[str]:
    """Return the sections that can change while a node runs, whole."""
    return [section for section in children(Settings) if section not in FIXED_SECTIONS]


def live_keys() -> list[str]:
    """Return the keys that can change while a node runs, two levels of them: what a person would change as one."""
    found = []
    for section, kind in children(Settings).items():
        if section in FIXED_SECTIONS:
            continue
        is_list = getattr(kind, "__origin__", None) is tuple
        found += [section] if is_list else [f"{section}.{name}" for name in children(kind)]
    return found
