import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.connecting import TRANSITIONS, Connecting, ConnectionState, Trigger
from protocol.errors import LocalProtocolError


def test_the_states_are_named_in_the_words_users_read() -> None:
    assert [str(state) for state in ConnectionState] == [
        "disconnected",
        "connecting",
        "connected",
        "backing off",
        "unavailable",
    ]


@given(st.lists(st.sampled_from(Trigger), max_size=20))
def test_a_walk_follows_the_table_and_an_impossible_step_changes_nothing(triggers: list[Trigger]) -> None:
    connecting = Connecting()
    assert connecting.state is ConnectionState.DISCONNECTED
    for trigger in triggers:
        before = connecting.state
        if (before, trigger) in TRANSITIONS:
            assert connecting.on(trigger) is connecting.state is TRANSITIONS[before, trigger]
        else:
            with pytest.raises(LocalProtocolError, match=f"{trigger.name} is impossible in the state '{before}'"):
                connecting.on(trigger)
            assert connecting.state is before


def test_a_life() -> None:
    connecting = Connecting()
    walk = [
        (Trigger.OPEN, "connecting"),
        (Trigger.FAILED, "backing off"),
        (Trigger.RETRY, "connecting"),
        (Trigger.FAILED_REPEATEDLY, "unavailable"),
        (Trigger.RETRY, "connecting"),
        (Trigger.ACCEPTED, "connected"),
        (Trigger.LOST, "backing off"),
        (Trigger.RETRY, "connecting"),
        (Trigger.ACCEPTED, "connected"),
        (Trigger.CLOSE, "disconnected"),
        (Trigger.CLOSE, "disconnected"),
    ]
    assert [connecting.on(trigger) for trigger, _ in walk] == [state for _, state in walk]


def test_every_state_is_reached_and_can_be_closed() -> None:
    assert {state for state, _ in TRANSITIONS} == set(ConnectionState)
    assert set(TRANSITIONS.values()) == set(ConnectionState)
    for state in ConnectionState:
        assert TRANSITIONS[state, Trigger.CLOSE] is ConnectionState.DISCONNECTED


def test_nobody_changes_the_table() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[ConnectionState.CONNECTED, Trigger.OPEN] = ConnectionState.CONNECTED  # type: ignore[index]
