"""As much of JSON Schema (2020-12) as `spec/messages.schema.json` uses: the tests hold messages against it."""

from collections.abc import Mapping
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}

SAID_ONLY = {"title", "description", "default", "$schema", "$defs"}


def conforms(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Whether a value conforms; KeyError for a keyword that is not known here."""
    return all(
        KEYWORDS[keyword](value, argument, schema, root)
        for keyword, argument in schema.items()
        if keyword not in SAID_ONLY
    )


def _is_of_type(value: Any, name: str) -> bool:
    if name == "integer" and isinstance(value, float):
        return value.is_integer()  # the standard counts 1.0 as an integer
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _is_number(value: Any) -> bool:
    return _is_of_type(value, "number")


def _properties(value: Any, argument: Any, _schema: Any, root: Any) -> bool:
    return not isinstance(value, dict) or all(
        conforms(value[name], argument[name], root) for name in value if name in argument
    )


def _others(value: Any, argument: Any, schema: Any, root: Any) -> bool:
    known = schema.get("properties", {})
    return not isinstance(value, dict) or all(
        conforms(value[name], argument, root) for name in value if name not in known
    )


KEYWORDS: dict[str, Any] = {
    "type": lambda value, name, _schema, _root: _is_of_type(value, name),
    "enum": lambda value, allowed, _schema, _root: value in allowed,
    "const": lambda value, only, _schema, _root: value == only,
    "anyOf": lambda value, schemas, _schema, root: any(conforms(value, schema, root) for schema in schemas),
    "$ref": lambda value, name, _schema, root: conforms(value, root["$defs"][name.removeprefix("#/$defs/")], root),
    "properties": _properties,
    "additionalProperties": _others,
    "required": lambda value, names, _schema, _root: not isinstance(value, dict) or set(names) <= set(value),
    "items": lambda value, schema, _schema, root: (
        not isinstance(value, list) or all(conforms(item, schema, root) for item in value)
    ),
    "minimum": lambda value, least, _schema, _root: not _is_number(value) or value >= least,
    "maximum": lambda value, most, _schema, _root: not _is_number(value) or value <= most,
    "exclusiveMinimum": lambda value, bound, _schema, _root: not _is_number(value) or value > bound,
    "minLength": lambda value, least, _schema, _root: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most, _schema, _root: not isinstance(value, str) or len(value) <= most,
}
