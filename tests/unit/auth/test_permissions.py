from hypothesis import given
from hypothesis import strategies as st

from notifyd.auth.permissions import may_publish, may_subscribe
from notifyd.model import ANONYMOUS, Identity
from notifyd.settings import Access
from protocol.topics import Pattern

ANN = Identity(
    "ann", subscribe=(Pattern("orders:*"), Pattern("chat:**")), publish=(Pattern("chat:room1"), Pattern("a:*"))
)
TOPICS = st.sampled_from(["orders:1", "orders:1:2", "chat:room1", "chat:room2", "a:b", "b", "$node:1"])


def test_a_token_allows_what_its_patterns_match() -> None:
    assert may_subscribe(ANN, "orders:1", Access.TOKEN)
    assert may_subscribe(ANN, "chat:a:b", Access.TOKEN)
    assert not may_subscribe(ANN, "orders:1:2", Access.TOKEN)
    assert not may_subscribe(ANN, "a:b", Access.TOKEN)
    assert may_publish(ANN, "chat:room1", Access.TOKEN)
    assert may_publish(ANN, "a:b", Access.TOKEN)
    assert not may_publish(ANN, "orders:1", Access.TOKEN)


@given(st.sampled_from([ANN, ANONYMOUS]), TOPICS)
def test_access_anyone_and_service(identity: Identity, topic: str) -> None:
    assert may_subscribe(identity, topic, Access.ANYONE) is not topic.startswith("$")
    assert may_publish(identity, topic, Access.ANYONE) is not topic.startswith("$")
    assert not may_subscribe(identity, topic, Access.SERVICE)
    assert not may_publish(identity, topic, Access.SERVICE)


@given(TOPICS)
def test_the_anonymous_may_nothing_a_token_is_needed_for(topic: str) -> None:
    assert not may_subscribe(ANONYMOUS, topic, Access.TOKEN)
    assert not may_publish(ANONYMOUS, topic, Access.TOKEN)


def test_reserved_topics_are_the_servers() -> None:
    everything = Identity("root", subscribe=(Pattern("**"),), publish=(Pattern("**"), Pattern("$node:*")))
    named = Identity("root", subscribe=(Pattern("$node:*"),))
    assert not may_subscribe(everything, "$node:1", Access.TOKEN)
    assert may_subscribe(named, "$node:1", Access.TOKEN)
    assert not may_subscribe(named, "$node:1", Access.ANYONE)
    assert not may_subscribe(named, "$other:1", Access.TOKEN)
    assert not may_publish(everything, "$node:1", Access.TOKEN)
