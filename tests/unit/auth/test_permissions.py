from dataclasses import replace

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
    for identity in (everything, named, ANONYMOUS):
        assert not any(may_subscribe(identity, "$node:1", access) for access in Access)
        assert not any(may_publish(identity, "$node:1", access) for access in Access)


@given(TOPICS, st.sampled_from(Access))
def test_an_api_key_allows_all_but_to_speak_for_the_server(topic: str, access: Access) -> None:
    operator = Identity("$operator", operator=True, api_key=b"digest")
    assert may_subscribe(operator, topic, access)
    assert may_publish(operator, topic, access) is not topic.startswith("$")


@given(st.sampled_from([ANN, ANONYMOUS]), TOPICS, st.sampled_from(Access))
def test_an_operator_without_a_key_may_watch_the_server_besides(identity: Identity, topic: str, access: Access) -> None:
    operator = replace(identity, operator=True)
    assert may_subscribe(operator, topic, access) is (topic.startswith("$") or may_subscribe(identity, topic, access))
    assert may_publish(operator, topic, access) is may_publish(identity, topic, access)
