"""The grammar of `traceparent`, against an oracle written from the text of the recommendation."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.trace import is_sampled, parent_id_of, read_trace, trace_id_of, write_trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"

hexadecimal = st.text("0123456789abcdef", min_size=1, max_size=34)


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


almost = st.one_of(
    st.tuples(digits(2) | st.just("00"), digits(32) | st.just("0" * 32), digits(16) | st.just("0" * 16), digits(2)),
    st.tuples(hexadecimal, hexadecimal, hexadecimal, hexadecimal),
    st.tuples(st.just("00"), st.text("0123456789abcdefABCDEFg", min_size=32, max_size=32), digits(16), digits(2)),
).map("-".join)
tails = st.sampled_from(["", "-", "-what-the-future-will-be-like", "0", " ", "\n", ".", "-\n"])


def oracle(text: str) -> str | None:
    """Section 2.2.2 and 4.3, word by word."""
    version, *fields = text[:55].split("-")
    lower = set(string.digits + "abcdef")
    if [len(part) for part in (version, *fields)] != [2, 32, 16, 2] or not set("".join([version, *fields])) <= lower:
        return None
    trace_id, parent_id, flags = fields
    if version == "ff" or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    if version == "00":
        return text if len(text) == 55 else None
    return f"00-{trace_id}-{parent_id}-{int(flags, 16) & 3:02x}" if text[55:56] in {"", "-"} else None


@given(almost, tails)
def test_it_reads_what_the_recommendation_calls_one(text: str, tail: str) -> None:
    assert read_trace(text + tail) == oracle(text + tail)


@given(st.text() | st.text("0123456789abcdef-", max_size=60))
def test_nothing_else_is_one_and_nothing_raises(text: str) -> None:
    assert read_trace(text) == oracle(text)


@given(digits(2).filter(lambda version: version not in {"00", "ff"}), digits(2), tails)
def test_of_a_later_version_it_takes_what_it_knows(version: str, flags: str, tail: str) -> None:
    read = read_trace(f"{version}-{TRACE}-{PARENT}-{flags}{tail}")
    assert read == (f"00-{TRACE}-{PARENT}-{int(flags, 16) & 3:02x}" if tail[:1] in {"", "-"} else None)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "-",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" {GOOD}",
        GOOD.replace("4", "４"),
        GOOD.replace("-", "_"),
    ],
)
def test_what_is_none(text: str) -> None:
    assert read_trace(text) is None


def test_its_parts() -> None:
    assert (trace_id_of(GOOD), parent_id_of(GOOD)) == (TRACE, PARENT)
    assert write_trace(TRACE, PARENT, 1) == GOOD
    assert [is_sampled(f"{GOOD[:-2]}{flags}") for flags in ("00", "01", "02", "03", "ff", "fe")] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
