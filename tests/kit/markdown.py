"""Reading Markdown as a test needs it: its fenced blocks, its links and its headings."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"^```(\w*) ?(.*)$")
_HEADING = re.compile(r"^(#+) +(.+?) *#*$")
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_CODE = re.compile(r"`[^`]*`")


class Block(NamedTuple):
    """A fenced block: its language, what stands behind it, its lines, the number of the first, and its `##` heading."""

    language: str
    note: str
    lines: list[str]
    line: int
    section: str

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


class Link(NamedTuple):
    """Where a link leads, and the number of the line it stands on."""

    target: str
    line: int


def read_blocks(text: str) -> list[Block]:
    """Return the fenced blocks in their order."""
    blocks: list[Block] = []
    open_block: Block | None = None
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if open_block is not None:
            if line == "```":
                blocks.append(open_block)
                open_block = None
            else:
                open_block.lines.append(line)
        elif fence:
            open_block = Block(fence[1], fence[2], [], number + 1, section)
        elif line.startswith("## "):
            section = line.removeprefix("## ")
    assert open_block is None, f"the block of line {open_block and open_block.line} is not closed"
    return blocks


def read_links(text: str) -> list[Link]:
    """Return the links outside of code."""
    return [
        Link(target, number)
        for number, line in _prose(text)
        for target in _LINK.findall(_CODE.sub(lambda code: "x" * len(code[0]), line))
    ]


def read_anchors(text: str) -> set[str]:
    """Return the names by which GitHub lets a link point to a heading; a name given twice gets a number."""
    seen: dict[str, int] = {}
    anchors = set()
    for _, line in _prose(text):
        if heading := _HEADING.match(line):
            name = re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-")
            count = seen[name] = seen.get(name, -1) + 1
            anchors.add(f"{name}-{count}" if count else name)
    return anchors


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines outside of fenced blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line
