"""What is generated from the code and stands in `spec/`: the messages' JSON Schema, and the state tables.

`python -m protocol.schema` writes both; the tests fail while they are not fresh.

Source: protocol/messages.py and protocol/connecting.py.
"""

import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from protocol.connecting import TRANSITIONS, ConnectionState, Trigger
from protocol.messages import Request, ServerMessage

SCHEMA_FILE = "messages.schema.json"
STATES_FILE = "states.md"


def messages_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of every message; its `$defs` hold the unions Request and ServerMessage."""
    unions, definitions = msgspec.json.schema_components((Request, ServerMessage), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition["description"] = inspect.cleandoc(definition["description"])
    request, server_message = ({"anyOf": union["anyOf"]} for union in unions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "notifyd messages, version 1",
        "description": "Generated from protocol/messages.py by `python -m protocol.schema`. The text is spec/wire.md.",
        "anyOf": [{"$ref": "#/$defs/Request"}, {"$ref": "#/$defs/ServerMessage"}],
        "$defs": {"Request": request, "ServerMessage": server_message, **dict(sorted(definitions.items()))},
    }


def schema_text() -> str:
    """Return the content of `spec/messages.schema.json`."""
    return json.dumps(messages_schema(), indent=2, ensure_ascii=False) + "\n"


def states_text() -> str:
    """Return the content of `spec/states.md`."""
    return f"""# States

Generated from the code by `python -m protocol.schema`. A row is a state, a column is what happens in it, a cell is the
state that follows. An empty cell cannot happen: code that reports it all the same has a bug and gets an error.

## What keeps itself connected

A client, a link to a broker, a supervised service; in code `protocol/connecting.py`. It begins *disconnected*.

{transition_table(ConnectionState, Trigger, TRANSITIONS)}
- *open*: a connection is wanted. *accepted*: the peer said `connected`. *close*: no connection is wanted any more, or
  the peer closed with a code after which nobody comes back (wire.md, "Close codes").
- *failed*: an attempt failed; *failed repeatedly*: the fifth attempt in a row failed, or a later one. *lost*: a
  standing connection ended, and another may be tried. *retry*: the wait is over (wire.md, "Reconnecting").
- *unavailable* is *backing off* under another name, so that a user can be told: attempts go on.
"""


def transition_table(states: Iterable[str], triggers: Iterable[str], transitions: Mapping[Any, str]) -> str:
    """Draw transitions as a Markdown table: a row a state, a column a trigger."""
    columns = list(triggers)
    rows = [["state", *columns], ["---"] * (len(columns) + 1)]
    rows += ([f"**{state}**", *(transitions.get((state, trigger), "") for trigger in columns)] for state in states)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write(spec: Path) -> None:
    """Write both files into the directory `spec`."""
    (spec / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    (spec / STATES_FILE).write_text(states_text(), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "spec"))
