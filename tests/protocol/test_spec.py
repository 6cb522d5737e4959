"""Holds spec/wire.md against the code: its examples, its tables, its limits, and the references to its sections."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from protocol import codec, data, envelope, liveness, messages, topics
from protocol.errors import CloseCode, ErrorCode
from protocol.framing import Encoding
from protocol.messages import Request, ServerMessage, decode_request, decode_server_message
from tests.protocol.test_vectors import SPEC

ROOT = SPEC.parent
TEXT = (SPEC / "wire.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)
SECTIONS = dict(zip(HEADINGS, re.split(r"^##+ .+$", TEXT, flags=re.MULTILINE)[1:], strict=True))

REQUESTS, SERVER_MESSAGES = (
    {kind.__struct_config__.tag for kind in get_args(union)} for union in (Request, ServerMessage)
)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object of the text's json blocks."""
    decoder = json.JSONDecoder()
    for block in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        rest = block.strip()
        while rest:
            found, size = decoder.raw_decode(rest)
            yield found
            rest = rest[size:].strip()


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("example", list(objects(TEXT)), ids=lambda example: example["op"])
def test_every_example_is_a_message(example: dict[str, Any]) -> None:
    text = json.dumps(example)
    if example["op"] in REQUESTS and not {"members", "messages"} & example.keys():
        decode_request(text, Encoding.JSON)
    else:
        assert decode_server_message(text, Encoding.JSON) is not None


def test_every_message_has_an_example() -> None:
    assert {example["op"] for example in objects(TEXT)} == REQUESTS | SERVER_MESSAGES


def test_the_close_codes_are_those_of_the_code() -> None:
    told = {int(code): (reason.strip("`"), back == "yes") for code, reason, _, back in rows("Close codes")}
    assert told == {int(code): (code.reason, code.may_reconnect) for code in CloseCode}


def test_the_error_codes_are_those_of_the_code() -> None:
    told = {int(code): reasons for code, reasons, _ in rows("Errors")}
    assert told.keys() == set(ErrorCode)
    for code in ErrorCode:
        if code is not ErrorCode.NOT_FOUND:  # a request never gets a bare "not found": it says what was not
            assert told[code] == f"`{code.name.lower()}`"


@pytest.mark.parametrize(
    ("section", "said", "value"),
    [
        ("Frames", "48 45 41 52", codec.MAGIC.hex(" ")),
        ("Frames", "0 to 16 777 215", f"0 to {codec.MAX_PAYLOAD_BYTES:_}".replace("_", " ")),
        ("Limits", "64 KiB", f"{codec.DEFAULT_PAYLOAD_LIMIT_BYTES // 1024} KiB"),
        ("Limits", "up to 2 MiB", f"up to {codec.MOST_PAYLOAD_LIMIT_BYTES // 1024**2} MiB"),
        ("Limits", "| nesting of `data` | 64 |", f"| nesting of `data` | {data.MAX_DATA_DEPTH} |"),
        ("Limits", "1 to 128 characters", f"1 to {messages.MAX_KEY_CHARACTERS} characters"),
        ("Limits", "| a topic | 255 bytes |", f"| a topic | {topics.MAX_TOPIC_BYTES} bytes |"),
        ("Messages", "1 to 4 294 967 295", f"1 to {envelope.MAX_ID:_}".replace("_", " ")),
        ("What a wrong message gets", "first 200", f"first {messages.MAX_PROBLEM_CHARACTERS}"),
        ("Heartbeat", "30 s unless agreed", f"{liveness.DEFAULT_INTERVAL_S:g} s unless agreed"),
        ("Heartbeat", "at least 10 s", f"at least {liveness.DEFAULT_FLOOR_S:g} s"),
        ("Heartbeat", "`misses` is 2", f"`misses` is {liveness.DEFAULT_MISSES}"),
    ],
)
def test_the_numbers_are_those_of_the_code(section: str, said: str, value: str) -> None:
    assert said == value
    assert said in " ".join(SECTIONS[section].split())


def test_the_list_of_contents_is_whole() -> None:
    listed = re.search(r"^Contents: (.+?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert listed is not None
    top = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert [name.strip() for name in listed[1].replace("\n", " ").split("·")] == top


REFERENCE = re.compile(r'wire\.md, (?:section )?("[^"]+"(?:(?:,| and|, and) "[^"]+")*)')


@pytest.mark.parametrize("package", ["protocol", "notifyd", "tests", "spec"])
def test_what_refers_to_a_section_names_one_that_is_there(package: str) -> None:
    lost = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in {".py", ".md"}
        for names in REFERENCE.findall(" ".join(path.read_text(encoding="utf-8").split()))
        for name in re.findall(r'"([^"]+)"', names)
        if name not in HEADINGS
    ]
    assert lost == []


def test_what_the_text_refers_to_stands_in_it() -> None:
    referred = re.findall(r'(?:see|section)\s"([^"]+)"', TEXT)
    assert referred
    assert [name for name in referred if name not in HEADINGS] == []


def test_no_link_in_spec_is_broken() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in sorted(SPEC.rglob("*.md"))
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not Path(path.parent, target).exists()
    ]
    assert broken == []
