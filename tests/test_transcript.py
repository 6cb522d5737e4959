"""What holds the README to what is shown: it must notice what differs, and nothing else."""

import pytest

from tests.kit.markdown import read_anchors, read_blocks, read_links
from tests.kit.transcript import Expectation, plain, read_commands

MESSAGE = '{"op":"message","topic":"a","data":1,"time":1795449111507,"epoch":"f2c4be05ac35","offset":1}\n'
OTHER = '{"op":"message","topic":"a","data":1,"time":1800000000000,"epoch":"0123456789ab","offset":1}\n'


def is_shown(output: str, shown: str, *, complete: bool = True) -> bool:
    return Expectation(output.splitlines(), complete=complete).match(shown) is not None


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (MESSAGE, MESSAGE),
        (MESSAGE, OTHER),
        ("a\n…\nd\n", "a\nb\nc\nd\n"),
        ("a\n…\nd\n", "a\nd\n"),
        ("a\n…\n", "a\nb\n"),
        ("one … three\n", "one two three\n"),
        ("load: round trip 1.42 ms, every 1 s\n", "load: round trip 11.5 ms, every 1 s\n"),
        ("node connected for 10s\n", "node connected for 1m 3s\n"),
        ("metrics:workshop:load\n", "metrics:another-host.example:load\n"),
        ("a\n\nb\n", "a\nb\n"),
    ],
)
def test_what_may_differ_does(output: str, shown: str) -> None:
    assert is_shown(output, shown)


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (MESSAGE, MESSAGE.replace('"offset":1', '"offset":2')),
        (MESSAGE, MESSAGE.replace('"data":1', '"data":2')),
        (MESSAGE, MESSAGE.replace('"time"', '"when"')),
        (MESSAGE, MESSAGE + MESSAGE),
        (MESSAGE, ""),
        ("a\n…\nd\n", "a\nb\n"),
        ("load: round trip 1.42 ms, every 1 s\n", "load: round trip 1.42 ms, every 2 s\n"),
        ("node connected for 10s\n", "node backing off for 10s\n"),
        ("connections: 6\n", "connections: 7\n"),
        ("127.0.0.1:7500\n", "127.0.0.1:7501\n"),
    ],
)
def test_what_may_not_differ_is_noticed(output: str, shown: str) -> None:
    assert not is_shown(output, shown)
    difference = Expectation(output.splitlines(), complete=True).difference(shown)
    assert "--- the document\n+++ this run\n" in difference


def test_more_may_come_after_what_is_not_complete() -> None:
    assert is_shown("a\n", "a\nb\n", complete=False)
    assert not is_shown("a\n", "b\na\n", complete=False)


def test_names_are_bound_to_what_they_really_are() -> None:
    assert Expectation([MESSAGE.strip()], complete=True).match(OTHER) == {"f2c4be05ac35": "0123456789ab"}


def test_commands_are_told_from_output() -> None:
    lines = ["more", "$ one \\", "  two", "shown", "$ three"]
    assert [(command.text, command.output, command.line) for command in read_commands(lines, 10)] == [
        (None, ["more"], 10),
        ("one \\\n  two", ["shown"], 11),
        ("three", [], 14),
    ]


def test_a_terminals_controls_are_not_text() -> None:
    assert plain("> \x1b7\n\x1b[A\x1b[L< {}\n\x1b8\x1b[B> \r\x1b[KClosed\n") == "< {}\nClosed\n"


def test_reading_markdown() -> None:
    text = "# A b\n[x](a.md#b), `[no](code)`\n```sh one\n[no](block)\n## c\n```\n## It's `c`!\n## A b\n"
    assert [(link.target, link.line) for link in read_links(text)] == [("a.md#b", 2)]
    assert read_anchors(text) == {"a-b", "its-c", "a-b-1"}
    (block,) = read_blocks(text)
    assert (block.language, block.note, block.lines, block.line) == ("sh", "one", ["[no](block)", "## c"], 4)
