"""The choice of topics to list."""

from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.base import Accepted
from notifyd.figures.topics import MOST_TOPICS, REMEMBERED_TOPICS, BusiestTopics
from notifyd.hub.registry import Registry
from notifyd.hub.topic_counts import TopicCounts
from notifyd.settings import Settings
from protocol.position import Position

COUNTS = st.dictionaries(
    st.sampled_from([f"t:{number}" for number in range(150)] + ["$sys:figures"]),
    st.tuples(st.integers(0, 5), st.integers(0, 50)),
    max_size=150,
)


def choice() -> BusiestTopics:
    return BusiestTopics(Registry(Settings().policy_for), len)


def traffic_of(counts: dict[str, tuple[int, int]], offset: int | None = 1) -> TopicCounts:
    position = None if offset is None else Position("e", offset)
    traffic = TopicCounts()
    for topic, (published, delivered) in counts.items():
        for _ in range(published):
            traffic.publish(topic, Accepted(position))
        traffic.deliver(topic, delivered, position)
    return traffic


@given(COUNTS)
def test_the_busiest_come_first_and_nothing_of_the_servers(counts: dict[str, tuple[int, int]]) -> None:
    listed, more = choice().choose(traffic_of(counts).take(), 2.0)
    counts.pop("$sys:figures", None)
    ranked = sorted(counts, key=lambda topic: (-sum(counts[topic]), topic))
    assert [one.topic for one in listed] == ranked[:MOST_TOPICS]
    assert more is (len(ranked) > MOST_TOPICS)
    for one in listed:
        published, delivered = counts[one.topic]
        assert (one.incoming, one.outgoing, one.history) == (published / 2, delivered / 2, len(one.topic))


def test_a_topic_that_fell_silent_stays_as_long_as_it_has_positions() -> None:
    topics = choice()
    topics.choose(traffic_of({"kept:1": (1, 1)}, 5).take() | traffic_of({"plain:1": (1, 1)}, None).take(), 1.0)
    listed, _ = topics.choose({}, 1.0)
    assert [(one.topic, one.incoming, one.epoch, one.offset) for one in listed] == [("kept:1", 0.0, "e", 5)]


def test_a_key_that_is_known_is_no_message_more() -> None:
    traffic = TopicCounts()
    traffic.publish("a:b", Accepted(Position("e", 1)))
    traffic.publish("a:b", Accepted(Position("e", 1), repeated=True))
    assert traffic.take()["a:b"].published == 1
    assert traffic.take() == {}


def test_a_position_never_goes_back() -> None:
    topics, traffic = choice(), TopicCounts()

    def told(topic: str) -> tuple[str | None, int | None]:
        listed, _ = topics.choose(traffic.take(), 1.0)
        return next((one.epoch, one.offset) for one in listed if one.topic == topic)

    traffic.deliver("a:b", 1, Position("e", 5))
    traffic.publish("a:b", Accepted(Position("d", 9), repeated=True))  # the answer that the key's first publish had
    assert told("a:b") == ("e", 5)
    traffic.deliver("a:b", 1, Position("e", 6))
    traffic.publish("a:b", Accepted(Position("e", 4)))  # an answer of Redis's that came behind later messages
    assert told("a:b") == ("e", 6)
    traffic.publish("a:b", Accepted(Position("e", 5)))
    assert told("a:b") == ("e", 6)
    traffic.publish("a:b", Accepted(Position("f", 1)))
    assert told("a:b") == ("f", 1)


def test_what_is_remembered_is_bounded() -> None:
    topics = choice()
    topics.begin({f"known:{number}": Position("e", 1) for number in range(3 * REMEMBERED_TOPICS)})
    for round_number in range(3):
        topics.choose(traffic_of({f"r{round_number}:{number}": (1, 0) for number in range(700)}).take(), 1.0)
    assert len(topics._remembered) == REMEMBERED_TOPICS
    listed, more = topics.choose({}, 1.0)
    assert (len(listed), more) == (MOST_TOPICS, True)
