import json
from pathlib import Path
from typing import Any, get_args

import pytest

from protocol import schema
from protocol.messages import Request, ServerMessage
from tests.protocol.json_schema import conforms
from tests.protocol.test_vectors import SPEC, vectors

MESSAGES = vectors("messages")
SCHEMA: dict[str, Any] = json.loads((SPEC / schema.SCHEMA_FILE).read_text(encoding="utf-8"))

ONLY_TOLD_BY_THE_TEXT = {
    "id a float",  # to JSON Schema 1.0 is an integer
    "data 65 deep",
    "data of call 65 deep",
    "data 3000 deep, JSON",  # where Python's parser follows that deep
    "data holds an integer of 2^64",
    "data holds an integer below -2^63",
    "data holds half a surrogate pair",
    "data holds half a surrogate pair as a key",
    "half a surrogate pair in an ignored field",
    "data holds a number beyond 64-bit floats",
}
"""Cases that conform to the schema and are wrong all the same; wire.md says why."""


def parsed(case: dict[str, Any]) -> Any:
    """The JSON of a case; None where it is not JSON, or nested too deep for Python's parser."""
    try:
        return json.loads(case.get("json", ""), parse_constant=int)  # NaN: int("NaN") is a ValueError
    except (ValueError, RecursionError):
        return None


WRONG = [(case["name"], message) for case in MESSAGES["invalid"] if isinstance(message := parsed(case), dict)]


def is_request(value: Any) -> bool:
    return conforms(value, SCHEMA["$defs"]["Request"], SCHEMA)


def test_the_files_in_spec_are_fresh(tmp_path: Path) -> None:
    schema.write(tmp_path)
    for name in (schema.SCHEMA_FILE, schema.STATES_FILE):
        fresh, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, SPEC))
        assert kept == fresh, f"spec/{name} is stale: run `python -m protocol.schema`"


def test_every_message_type_is_in_the_schema() -> None:
    for union, name in ((Request, "Request"), (ServerMessage, "ServerMessage")):
        kinds = [f"#/$defs/{kind.__name__}" for kind in get_args(union)]
        assert [choice["$ref"] for choice in SCHEMA["$defs"][name]["anyOf"]] == kinds


@pytest.mark.parametrize("case", MESSAGES["valid"], ids=lambda case: case["name"])
def test_valid_messages_conform(case: dict[str, Any]) -> None:
    union = "Request" if case["from"] == "client" else "ServerMessage"
    message = json.loads(case["json"])
    assert conforms(message, SCHEMA["$defs"][union], SCHEMA)
    assert conforms(message, SCHEMA, SCHEMA)


@pytest.mark.parametrize(("name", "message"), WRONG, ids=[name for name, _ in WRONG])
def test_invalid_requests_do_not(name: str, message: dict[str, Any]) -> None:
    assert is_request(message) is (name in ONLY_TOLD_BY_THE_TEXT)
