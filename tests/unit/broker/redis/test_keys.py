"""Names in Redis: one slot for all of a topic's, none twice, and the way back from a name to its topic."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from notifyd.broker.redis.keys import Names
from protocol.topics import check_topic


def is_topic(text: str) -> bool:
    try:
        return bool(check_topic(text))
    except ValueError:
        return False


HOSTILE = ["{", "}", "{}", "}{", "a:{b}", "{a}:b", "%7B", "%257B", "a}:topic:{b", "topic:{a}", "%", "nodes", "🎈:{é}"]

legal_topics = st.one_of(
    st.sampled_from(HOSTILE),
    st.text("{}%:ab7BD", min_size=1, max_size=20).filter(is_topic),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=60).filter(is_topic),
)
prefixes = st.sampled_from(["notifyd", "a:b", "{x", "x}", "{}", "{x}", "pre{fix}:%", "*", "topic:{"])


def names_of(names: Names, topic: str) -> list[str]:
    own = [names.topic(topic), names.stream(topic), names.presence(topic), names.channel(topic)]
    return [*own, *(names.key(topic, key) for key in ("k", "{", "}", "", "{a}", "k" * 128))]


@given(prefixes, legal_topics)
def test_all_names_of_a_topic_share_a_slot(prefix: str, topic: str) -> None:
    names = names_of(Names(prefix), topic)
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert len(set(names)) == len(names)


@given(prefixes, legal_topics)
def test_the_slot_is_the_topics_alone(prefix: str, topic: str) -> None:
    """Not the prefix's: else a brace in it would put all topics of a Cluster on one server."""
    plain = Names("notifyd").topic(topic)
    assert key_slot(Names(prefix).topic(topic).encode()) == key_slot(plain.encode())


@given(prefixes, legal_topics, legal_topics)
@example("notifyd", "{", "%7B")
@example("notifyd", "a", "a}:b")
def test_no_two_names_are_equal(prefix: str, one: str, other: str) -> None:
    names = Names(prefix)
    single = [names.nodes(), names.revoked(), names.control()]
    for_one, for_other = (
        {*names_of(names, text), names.session(text), names.members(text), names.control_of(text)}
        for text in (one, other)
    )
    assert len({*for_one, *single}) == len(for_one) + len(single)
    assert one == other or not for_one & for_other


@given(prefixes, legal_topics)
def test_a_name_leads_back_to_its_topic(prefix: str, topic: str) -> None:
    names = Names(prefix)
    assert names.topic_of_channel(names.channel(topic)) == topic
    assert names.topic_of_channel(names.channel(topic).encode()) == topic
    assert names.topic_of_key(names.topic(topic)) == topic
    assert names.topic_of_key(names.topic(topic).encode()) == topic


@pytest.mark.parametrize(
    "name",
    ["", "notifyd:channel:{a", "notifyd:channel:a}", "other:channel:{a}", "notifyd:topic:{a}", "notifyd:channel:{a}}"],
)
def test_other_names_have_no_topic(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of"):
        Names("notifyd").topic_of_channel(name)


def test_prefixes_are_worlds_of_their_own() -> None:
    one, other = (set(names_of(Names(prefix), "a:b")) for prefix in ("a", "a:topic"))
    assert not one & other


def test_a_long_key_has_a_short_name() -> None:
    assert len(Names("notifyd").key("a:b", "k" * 10_000)) < 64
