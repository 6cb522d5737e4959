"""The hub as connections and the HTTP side use it: presence, acknowledgements, sessions."""

import pytest
import trio
from trio.testing import MockClock

from notifyd.errors import BrokerUnavailable
from notifyd.hub.hub import record_of
from protocol.errors import CloseCode, ErrorCode, RequestError
from protocol.messages import Member
from protocol.position import Position
from tests.kit.hub_kit import HubKit, open_hub
from tests.kit.memory_node import UNIX_S, policy

AWAY = BrokerUnavailable("away")


async def position(hub_kit: HubKit, offset: int, topic: str = "a:b") -> Position:
    return Position((await hub_kit.hub.history(topic, "latest", 1)).top.epoch, offset)


class TestHistory:
    async def test_a_position_before_the_oldest_kept_reads_from_the_oldest_on(self) -> None:
        async with open_hub(policy("a:b", history=3)) as hub_kit:
            await hub_kit.publish("a:b", 10)
            page = await hub_kit.hub.history("a:b", await position(hub_kit, 2), 2)
            assert [message.position.offset for message in page.messages] == [8, 9]
            assert page.more

    @pytest.mark.parametrize("offset", [11, None])
    async def test_a_position_of_another_epoch_or_above_the_newest_reads_nothing(self, offset: int | None) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 10)
            top = await position(hub_kit, 10)
            since = Position("other", 3) if offset is None else Position(top.epoch, offset)
            page = await hub_kit.hub.history("a:b", since, 100)
            assert not page.messages
            assert page.top == top

    async def test_without_history_there_is_none(self) -> None:
        async with open_hub(policy("a:b", history=0)) as hub_kit:
            await hub_kit.publish("a:b")
            page = await hub_kit.hub.history("a:b", Position("e", 1), 100)
            assert not page.messages
            assert page.top is None


class TestPresence:
    async def test_members_in_the_order_they_came(self) -> None:
        async with open_hub() as hub_kit:
            ada, bob = hub_kit.subscriber("ada"), hub_kit.subscriber("bob")
            await bob.subscribe("a:b")
            await ada.subscribe("a:b")
            since = int(UNIX_S * 1000)
            assert [(m.user, m.session) for m in await hub_kit.hub.presence("a:b")] == [("bob", "s2"), ("ada", "s1")]
            assert abs((await hub_kit.hub.presence("a:b"))[0].since - since) < 10**9
            await bob.unsubscribe("a:b")
            await ada.leave()
            assert await hub_kit.hub.presence("a:b") == []

    async def test_where_the_policy_keeps_none_there_is_none(self) -> None:
        async with open_hub(policy("a:b", presence=False)) as hub_kit:
            ada = hub_kit.subscriber("ada")
            await ada.subscribe("a:b")
            assert await hub_kit.hub.presence("a:b") == []
            await ada.unsubscribe("a:b")
            assert not hub_kit.broker.called("join")
            assert not hub_kit.broker.called("leave")

    async def test_others_hear_who_joined_and_left(self) -> None:
        async with open_hub(policy("a:b", joins=True)) as hub_kit:
            ada, bob = hub_kit.subscriber("ada"), hub_kit.subscriber("bob")
            await ada.subscribe("a:b")
            await bob.subscribe("a:b")
            await bob.unsubscribe("a:b")
            await ada.leave()
            hub_kit.hub.fanout.flush()
            told = [(one["op"], one["user"], one["session"]) for one in ada.messages]
            assert told == [("joined", "bob", "s2"), ("left", "bob", "s2")]
            assert bob.messages == []


class TestAcknowledging:
    async def test_is_cumulative_and_never_goes_back(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 5)
            acknowledge = hub_kit.hub.acknowledge
            assert acknowledge(ada.subscriber, "a:b", 3) == 3
            assert acknowledge(ada.subscriber, "a:b", 1) == 3
            assert acknowledge(ada.subscriber, "a:b", 5) == 5
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 5)}
            assert record_of(ada.subscriber).acknowledged == {"a:b"}

    async def test_what_was_not_sent_cannot_be(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await hub_kit.publish("a:b", 2)
            await ada.subscribe("a:b")
            with pytest.raises(RequestError, match="offset 3 has not been sent") as refusal:
                hub_kit.hub.acknowledge(ada.subscriber, "a:b", 3)
            assert refusal.value.code is ErrorCode.BAD_REQUEST
            assert hub_kit.hub.acknowledge(ada.subscriber, "a:b", 2) == 2

    async def test_needs_a_subscription(self) -> None:
        async with open_hub() as hub_kit:
            with pytest.raises(RequestError) as refusal:
                hub_kit.hub.acknowledge(hub_kit.subscriber().subscriber, "a:b", 1)
            assert refusal.value.code is ErrorCode.CONFLICT

    async def test_needs_a_history(self) -> None:
        async with open_hub(policy("a:b", history=0)) as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b")
            with pytest.raises(RequestError):
                hub_kit.hub.acknowledge(ada.subscriber, "a:b", 0)

    async def test_a_new_epoch_begins_anew(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 5)
            hub_kit.hub.acknowledge(ada.subscriber, "a:b", 5)
            hub_kit.broker._broker._histories.end_epoch("a:b")
            await hub_kit.publish("a:b", 2)
            assert hub_kit.hub.acknowledge(ada.subscriber, "a:b", 1) == 1
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 1)}


class TestResumePosition:
    """Where a session goes on, whatever state its subscription was in."""

    async def test_where_nothing_came_since_it_subscribed(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 3)
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 3)}

    async def test_what_the_socket_did_not_take_comes_again(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 3)
            ada.sink.room_bytes = 10
            await hub_kit.publish("a:b", 3)
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 3)}
            ada.sink.break_off()
            await trio.testing.wait_all_tasks_blocked()
            await hub_kit.publish("a:b", 3)
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 3)}

    async def test_what_an_overflow_kept_out_comes_again(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber(budget_bytes=500)
            await ada.subscribe("a:b")
            await ada.subscribe("c:d")
            ada.sink.room_bytes = 0
            await hub_kit.publish("c:d", 1, size=300)
            await hub_kit.publish("a:b", 1, size=300)
            assert ada.outbox.calls.overflows
            await hub_kit.publish("a:b", 1)
            assert record_of(ada.subscriber).positions == {
                "a:b": await position(hub_kit, 0),
                "c:d": await position(hub_kit, 0, "c:d"),
            }

    @pytest.mark.parametrize("since", ["latest", "earliest", 3])
    async def test_before_its_answer_was_sent(self, since: str | int) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 5)
            ada = hub_kit.subscriber()
            asked = await position(hub_kit, since) if isinstance(since, int) else since
            await hub_kit.hub.subscribe(ada.subscriber, "a:b", asked)
            await hub_kit.publish("a:b", 5)
            offset = {"latest": 5, "earliest": 0, 3: 3}[since]
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, offset)}

    async def test_in_the_middle_of_a_replay(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 350, 100)
            ada = hub_kit.subscriber()
            ada.sink.room_bytes = 2000
            await ada.subscribe("a:b", "earliest")
            whole = ada.told("a:b")
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 0)}
            ada.sink.allow(50_000)
            await trio.testing.wait_all_tasks_blocked()
            whole += ada.told("a:b")
            assert record_of(ada.subscriber).positions["a:b"].offset <= whole[-1]

    async def test_a_gap_that_was_not_told_is_told_later(self) -> None:
        async with open_hub(policy("a:b", history=2)) as hub_kit:
            await hub_kit.publish("a:b", 5)
            ada = hub_kit.subscriber()
            ada.sink.room_bytes = 0
            await ada.subscribe("a:b", await position(hub_kit, 1), tell_gap=True)
            assert record_of(ada.subscriber).positions == {"a:b": await position(hub_kit, 1)}

    async def test_without_history_there_is_none(self) -> None:
        async with open_hub(policy("a:b", history=0)) as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b")
            assert record_of(ada.subscriber).positions == {"a:b": None}

    async def test_topics_that_are_still_to_be_restored_are_kept(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            ada.subscriber.restoring = {"a:b": Position("e", 1), "c:d": Position("e", 2)}
            await ada.subscribe("a:b")
            positions = record_of(ada.subscriber).positions
            assert positions == {"a:b": await position(hub_kit, 0), "c:d": Position("e", 2)}


class TestSessions:
    async def test_one_that_left_can_be_resumed_once_by_its_user(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber("ada", "one")
            await ada.subscribe("a:b")
            await ada.leave()
            assert not hub_kit.hub.registry.topics
            assert not hub_kit.hub.registry.subscribers
            assert await hub_kit.hub.resume("one", "bob") is None
            record = await hub_kit.hub.resume("one", "ada")
            assert record.positions == {"a:b": await position(hub_kit, 0)}
            assert await hub_kit.hub.resume("one", "ada") is None

    async def test_one_without_subscriptions_is_not_kept(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.subscriber("ada", "one").leave()
            assert await hub_kit.hub.resume("one", "ada") is None
            assert not hub_kit.broker.called("save_session")

    async def test_one_that_is_here_is_taken_over(self) -> None:
        async with open_hub(policy("**", joins=True)) as hub_kit:
            ada, bob = hub_kit.subscriber("ada", "one"), hub_kit.subscriber("bob")
            for topic in ("a:b", "c:d"):
                await ada.subscribe(topic)
            await bob.subscribe("c:d")
            assert await hub_kit.hub.resume("one", "bob") is None
            record = await hub_kit.hub.resume("one", "ada")
            assert set(record.positions) == {"a:b", "c:d"}
            heir = hub_kit.subscriber("ada", "one")
            assert ada.ended == [CloseCode.REPLACED]
            await heir.subscribe("a:b", record.positions["a:b"])
            await ada.leave()
            assert hub_kit.hub.registry.subscribers["one"] is heir.subscriber
            assert not hub_kit.broker.called("save_session")
            assert [member.session for member in await hub_kit.hub.presence("a:b")] == ["one"]
            assert [member.user for member in await hub_kit.hub.presence("c:d")] == ["bob"]
            hub_kit.hub.fanout.flush()
            assert [one["op"] for one in bob.messages] == ["left"]
            await heir.leave()
            assert await hub_kit.hub.resume("one", "ada") is not None

    async def test_an_heir_that_is_gone_already_is_not_written_over(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber("ada", "one")
            await ada.subscribe("a:b")
            heir = hub_kit.subscriber("ada", "one")
            await heir.subscribe("a:b")
            await hub_kit.publish("a:b", 2)
            hub_kit.hub.acknowledge(heir.subscriber, "a:b", 1)
            await heir.leave()
            await ada.leave()
            assert (await hub_kit.hub.resume("one", "ada")).positions == {"a:b": await position(hub_kit, 1)}

    async def test_names_cannot_be_guessed(self) -> None:
        async with open_hub() as hub_kit:
            names = {hub_kit.hub.new_session() for _ in range(100)}
            assert len(names) == 100
            assert all(len(name) >= 24 for name in names)

    async def test_where_the_broker_is_away_leaving_ends_all_the_same(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber("ada", "one")
            await ada.subscribe("a:b")
            await ada.subscribe("c:d")
            hub_kit.broker.fail("save_session", AWAY)
            await ada.leave()
            assert not hub_kit.hub.registry.topics
            assert not hub_kit.hub.registry.subscribers
            assert len(hub_kit.events.logged("session_not_saved")) == 1
            assert len(hub_kit.broker.called("leave")) == 2
            assert len(hub_kit.broker.called("save_session")) == 1

    async def test_a_session_expires(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            for wait_s, known in ((299, True), (301, False)):
                ada = hub_kit.subscriber("ada", "one")
                await ada.subscribe("a:b")
                await ada.leave()
                await trio.sleep(wait_s)
                assert (await hub_kit.hub.resume("one", "ada") is not None) is known


async def test_subscribing_twice_is_a_conflict() -> None:
    async with open_hub() as hub_kit:
        ada = hub_kit.subscriber()
        await ada.subscribe("a:b")
        with pytest.raises(RequestError) as refusal:
            await ada.subscribe("a:b")
        assert refusal.value.code is ErrorCode.CONFLICT
        assert set(ada.subscriber.subscriptions) == {"a:b"}
        assert isinstance((await hub_kit.hub.presence("a:b"))[0], Member)


async def test_new_policies_hold_for_topics_in_use() -> None:
    async with open_hub() as hub_kit:
        ada = hub_kit.subscriber()
        await ada.subscribe("a:b")
        changed = hub_kit.hub._settings.__class__(topics=(policy("a:b", joins=True),))
        hub_kit.hub.reload(changed)
        assert hub_kit.hub.registry.topics["a:b"].policy.joins
        await hub_kit.subscriber("bob").subscribe("a:b")
        hub_kit.hub.fanout.flush()
        assert [one["op"] for one in ada.messages] == ["joined"]
