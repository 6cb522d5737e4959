"""The conformance suite, second part: what `notifyd/broker/base.py` promises of presence, sessions and topics."""

from typing import Any

import pytest
import trio

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import VERSIONS_KEPT, ConfigurationVersion, SessionRecord
from notifyd.model import SessionId
from protocol.messages import Member
from protocol.position import Position
from tests.unit.broker.conformance import Trial

# --- presence --------------------------------------------------------------------------------------------------------


def member(session: str, since: int = 1) -> Member:
    return Member(user="ann", session=session, since=since)


async def test_members_are_told_in_the_order_they_joined(trial: Trial) -> None:
    for session in ("s2", "s1", "s3"):
        await trial.broker.join("a:b", member(session), announce=False)
    assert await trial.broker.presence("a:b") == [member("s2"), member("s1"), member("s3")]
    assert await trial.broker.presence("a:c") == []


async def test_joining_twice_is_joining_once(trial: Trial) -> None:
    await trial.broker.join("a:b", member("s1", since=1), announce=False)
    await trial.broker.join("a:b", member("s2", since=2), announce=False)
    await trial.broker.join("a:b", member("s1", since=3), announce=False)
    assert await trial.broker.presence("a:b") == [member("s1", since=1), member("s2", since=2)]
    await trial.broker.leave("a:b", member("s1"), announce=False)
    assert await trial.broker.presence("a:b") == [member("s2", since=2)]


async def test_leaving_without_having_joined_changes_nothing(trial: Trial) -> None:
    await trial.broker.leave("a:b", member("s1"), announce=False)
    await trial.broker.join("a:b", member("s1"), announce=False)
    await trial.broker.leave("a:b", member("s2"), announce=False)
    await trial.broker.leave("a:c", member("s1"), announce=False)
    assert await trial.broker.presence("a:b") == [member("s1")]


async def test_a_list_of_members_is_a_copy(trial: Trial) -> None:
    await trial.broker.join("a:b", member("s1"), announce=False)
    (await trial.broker.presence("a:b")).clear()
    assert await trial.broker.presence("a:b") == [member("s1")]


async def test_who_comes_and_goes_is_told_where_it_is_asked_for(trial: Trial) -> None:
    await trial.subscribe("a:b")
    for announce in (True, False):
        for session in ("s1", "s1", "s2"):
            await trial.broker.join("a:b", member(session), announce=announce)
        await trial.broker.leave("a:b", member("s1"), announce=announce)
        await trial.broker.leave("a:b", member("s1"), announce=announce)
        await trial.broker.leave("a:b", member("s2"), announce=announce)
    await trial.broker.join("a:c", member("s1"), announce=True)
    await trial.delivered_all()
    told = [(type(change).__name__, change.topic, change.session, change.user) for change in trial.got.changes]
    assert told == [
        ("Joined", "a:b", "s1", "ann"),
        ("Joined", "a:b", "s2", "ann"),
        ("Left", "a:b", "s1", "ann"),
        ("Left", "a:b", "s2", "ann"),
    ]


# --- sessions --------------------------------------------------------------------------------------------------------


def record(session: str = "s1", user: str = "ann") -> SessionRecord:
    return SessionRecord(SessionId(session), user, {"a:b": Position("x", 3), "no:history": None})


async def test_a_session_is_loaded_as_it_was_saved(trial: Trial) -> None:
    assert await trial.broker.save_session(record(), trial.ttl_s) is True
    assert await trial.broker.load_session(SessionId("s1"), "ann") == record()
    assert await trial.broker.save_session(record(), trial.ttl_s) is True  # the node that took it goes on with it
    assert await trial.broker.load_session(SessionId("s1"), "ann") == record()


async def test_an_unknown_session_is_none(trial: Trial) -> None:
    assert await trial.broker.load_session(SessionId("s1"), "ann") is None


async def test_another_users_session_stays_where_it_is(trial: Trial) -> None:
    await trial.broker.save_session(record(), trial.ttl_s)
    assert await trial.broker.load_session(SessionId("s1"), "bob") is None
    assert await trial.broker.load_session(SessionId("s1"), "") is None
    assert await trial.broker.load_session(SessionId("s1"), "ann") == record()


async def test_a_session_ends_after_its_time(trial: Trial) -> None:
    await trial.broker.save_session(record("s1"), trial.ttl_s)
    await trial.broker.save_session(record("s2"), trial.ttl_s * 3)
    await trial.advance(trial.ttl_s * 1.5)
    assert await trial.broker.load_session(SessionId("s1"), "ann") is None
    assert await trial.broker.load_session(SessionId("s2"), "ann") == record("s2")


async def test_a_session_saved_again_is_replaced(trial: Trial) -> None:
    await trial.broker.save_session(record(), trial.ttl_s)
    newer = SessionRecord(SessionId("s1"), "ann", {"a:c": None})
    await trial.advance(trial.ttl_s * 0.6)
    await trial.broker.save_session(newer, trial.ttl_s)
    await trial.advance(trial.ttl_s * 0.6)
    assert await trial.broker.load_session(SessionId("s1"), "ann") == newer


async def test_a_saved_session_is_a_copy(trial: Trial) -> None:
    saved = record()
    await trial.broker.save_session(saved, trial.ttl_s)
    saved.positions.clear()
    assert await trial.broker.load_session(SessionId("s1"), "ann") == record()


# --- topics ----------------------------------------------------------------------------------------------------------


async def test_topics_are_told_with_their_newest_positions(trial: Trial) -> None:
    assert await trial.topics() == {}
    positions = await trial.publish("a:b", 1, 2)
    await trial.subscribe("a:b")
    await trial.subscribe("no:history")
    assert await trial.topics() == {"a:b": positions[1], "no:history": None}
    await trial.broker.unsubscribe("no:history")
    await trial.advance(trial.ttl_s * 2)
    assert await trial.topics() == {"a:b": positions[1]}


# --- what concerns all nodes -----------------------------------------------------------------------------------------


async def test_a_revocation_holds_here_at_once(trial: Trial) -> None:
    revocation = Revocation(until_s=2e9, token_id="j")
    await trial.broker.revoke(revocation)
    assert set(trial.got.revoked) == {revocation}  # more than once where the broker is asked again at the same time


def version(number: int, **overlay: Any) -> ConfigurationVersion:
    return ConfigurationVersion(number, 1_790_000_000_000 + number, f"author {number}", overlay)


async def test_versions_of_the_configuration_follow_each_other(trial: Trial) -> None:
    assert await trial.broker.configurations(10) == []
    versions = [version(1, limits={"payload": "1KiB"}), version(2), version(3, topics=[{"match": "a:*"}])]
    for one in versions:
        assert await trial.broker.configure(one) is True
        assert trial.got.configured[-1] == one
    assert trial.got.configured == versions
    assert await trial.broker.configurations(10) == versions[::-1]
    assert await trial.broker.configurations(1) == versions[-1:]


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_version_that_does_not_follow_the_newest_is_left_out(number: int, trial: Trial) -> None:
    await trial.broker.configure(version(1))
    assert await trial.broker.configure(version(number, limits={})) is False
    assert await trial.broker.configurations(10) == trial.got.configured == [version(1)]


async def test_of_versions_at_the_same_time_one_is_kept(trial: Trial) -> None:
    outcomes: list[bool] = []

    async def configure(payload: int) -> None:
        outcomes.append(await trial.broker.configure(version(1, limits={"payload": payload})))

    async with trio.open_nursery() as nursery:
        for payload in range(8):
            nursery.start_soon(configure, payload)
    assert sorted(outcomes) == [False] * 7 + [True]
    assert await trial.broker.configurations(10) == trial.got.configured
    assert len(trial.got.configured) == 1


async def test_the_newest_versions_are_kept(trial: Trial) -> None:
    for number in range(1, VERSIONS_KEPT + 4):
        assert await trial.broker.configure(version(number))
    kept = [one.version for one in await trial.broker.configurations(1000)]
    assert kept == list(range(VERSIONS_KEPT + 3, 3, -1))


async def test_what_is_watched_here_is_news_to_others_alone(trial: Trial) -> None:
    await trial.subscribe("a:b")
    await trial.broker.tell_watched(["$sys:tree"])
    await trial.publish("a:b", 1)
    await trial.delivered_all()
    assert trial.got.watched == []


async def test_a_session_that_no_other_node_has_is_not_ended(trial: Trial) -> None:
    assert await trial.broker.end_session(SessionId("s1")) is False


async def test_a_broker_that_works_has_no_problems(trial: Trial) -> None:
    assert await trial.broker.problems() == []
