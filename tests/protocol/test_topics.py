import sys
import unicodedata
from itertools import filterfalse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.topics import Pattern, check_topic, is_reserved

parts = st.sampled_from(["a", "b", "c", "room 1".replace(" ", "_"), "räume", "$sys"])
topics = st.lists(parts, min_size=1, max_size=5).map(":".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    middle = draw(st.lists(parts | st.just("*"), max_size=4))
    return ":".join([*middle, draw(parts | st.sampled_from(["*", "**"]))])


def matches_slowly(pattern: list[str], topic: list[str]) -> bool:
    """Say the same as Pattern.matches, in the words of the grammar: `*` one part, `**` one part or more."""
    if not pattern or not topic:
        return pattern == topic
    if pattern[0] == "**":
        return True
    return pattern[0] in ("*", topic[0]) and matches_slowly(pattern[1:], topic[1:])


@given(patterns(), topics)
@example("**", "a")
@example("a:**", "a")
@example("a:*:**", "a:b")
def test_patterns_match_as_the_grammar_says(pattern: str, topic: str) -> None:
    check_topic(topic)
    assert Pattern(pattern).matches(topic) is matches_slowly(pattern.split(":"), topic.split(":"))


@given(topics)
def test_a_topic_is_a_pattern_that_matches_only_itself(topic: str) -> None:
    pattern = Pattern(topic)
    assert pattern.matches(topic)
    assert not pattern.matches(topic + ":a")
    assert not pattern.matches("a:" + topic)
    assert not pattern.matches(topic + "x")


def valid_by_the_letter(text: str) -> bool:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return False
    return (
        1 <= size_bytes <= 255
        and all(part for part in text.split(":"))
        and not any(character.isspace() or unicodedata.category(character) == "Cc" for character in text)
        and "*" not in text
    )


@given(st.text(st.characters() | st.sampled_from(" :*$\t\x7f\x85\u2028\ud800"), max_size=12) | st.text(min_size=120))
def test_a_topic_is_what_the_specification_says(text: str) -> None:
    if valid_by_the_letter(text):
        assert check_topic(text) == text
    else:
        with pytest.raises(ValueError, match=r"^topic "):
            check_topic(text)


def test_every_character_of_unicode_is_judged_by_the_letter() -> None:
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    forbidden = {*":*", *filter(str.isspace, characters), *map(chr, range(0xD800, 0xE000))}
    forbidden |= {character for character in characters if unicodedata.category(character) == "Cc"}
    for character in forbidden:
        with pytest.raises(ValueError, match=r"^topic "):
            check_topic(f"a:{character}")
    allowed = "".join(filterfalse(forbidden.__contains__, characters))
    for start in range(0, len(allowed), 60):
        check_topic(allowed[start : start + 60])


def test_the_size_is_counted_in_bytes() -> None:
    check_topic("é" * 127 + "a")
    with pytest.raises(ValueError, match="topic has 256 bytes; 1 to 255 are allowed"):
        check_topic("é" * 128)
    with pytest.raises(ValueError, match="topic has 0 bytes"):
        check_topic("")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:*", "contains '\\*', which stands only in patterns"),
        ("a b", "contains ' ': no white space"),
        ("a::b", "has an empty part"),
        (":a", "has an empty part"),
        ("a:", "has an empty part"),
        ("\ud800", "topic is not valid UTF-8 text"),
    ],
)
def test_an_invalid_topic_is_told_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_topic(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**:a", "has '\\*\\*' before its last part"),
        ("a:**:**", "has '\\*\\*' before its last part"),
        ("a*", "mixes '\\*' with other characters in the part 'a\\*'"),
        ("a:***", "mixes '\\*'"),
        ("a: ", "pattern 'a: ' contains ' '"),
        ("", "pattern has 0 bytes"),
    ],
)
def test_an_invalid_pattern_is_told_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pattern(text)


def test_reserved_topics_begin_with_a_dollar() -> None:
    assert is_reserved("$sys:nodes")
    assert not is_reserved("a:$sys")


def test_patterns_are_equal_when_their_text_is() -> None:
    assert Pattern("a:*") == Pattern("a:*") != Pattern("a:b")
    assert Pattern("a") != "a"
    assert len({Pattern("a:*"), Pattern("a:*"), Pattern("**")}) == 2
    assert repr(Pattern("a:*")) == "Pattern('a:*')"
