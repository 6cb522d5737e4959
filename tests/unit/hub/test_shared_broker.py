"""What a hub does for a broker that it shares with others: losses, takeovers, revocations, sessions while they live."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.auth.revocations import Revocation
from notifyd.broker.base import Loss
from notifyd.errors import BrokerUnavailable
from notifyd.hub.live_sessions import REFRESHES_A_TTL, SAVE_AGAIN_S, SAVE_PAUSE_S
from notifyd.model import Identity, Notification, SessionId
from protocol.errors import CloseCode
from protocol.messages import Joined
from protocol.position import Position
from tests.kit.hub_kit import HubKit, open_hub
from tests.kit.memory_node import policy


def top(hub_kit: HubKit, topic: str) -> Position:
    position = hub_kit.hub.registry.topics[topic].position
    assert position is not None
    return position


class TestLosses:
    async def test_live_subscribers_are_told_and_go_on(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 2)
            epoch = top(hub_kit, "a:b").epoch
            hub_kit.hub.lose(Loss("a:b", Position(epoch, 3), 5, "expired"))
            hub_kit.hub.deliver([Notification("a:b", "x", 0, Position(epoch, 6))])
            await wait_all_tasks_blocked()
            assert ada.told("a:b") == [1, 2, (3, 5), 6]
            assert hub_kit.hub.acknowledge(ada.subscriber, "a:b", 5) == 5

    async def test_one_that_reads_its_past_is_told_what_lies_behind_it(self) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.publish("a:b", 2)
            ada = hub_kit.subscriber()
            hub_kit.broker.pause("history answer")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ada.subscribe, "a:b", "earliest")
                await hub_kit.broker.waiting("history answer")
                epoch = next(iter((await hub_kit.broker.topics()).values())).epoch  # type: ignore[union-attr]
                hub_kit.hub.lose(Loss("a:b", Position(epoch, 1), 4, "expired"))
                hub_kit.hub.deliver([Notification("a:b", "x", 0, Position(epoch, 5))])
                hub_kit.broker.resume("history answer")
            await wait_all_tasks_blocked()
            assert ada.told("a:b") == [1, 2, (3, 4), 5]

    async def test_one_that_waits_for_the_first_live_message_is_told_instead(self) -> None:
        async with open_hub() as hub_kit:
            bob = hub_kit.subscriber("bob")
            await bob.subscribe("a:b")
            hub_kit.broker.hold_deliveries()
            await hub_kit.publish("a:b", 2)
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b", "earliest")
            epoch = next(iter((await hub_kit.broker.topics()).values())).epoch  # type: ignore[union-attr]
            hub_kit.hub.lose(Loss("a:b", Position(epoch, 1), 3, "expired"))
            hub_kit.hub.deliver([Notification("a:b", "x", 0, Position(epoch, 4))])
            await wait_all_tasks_blocked()
            assert ada.told("a:b") == [1, 2, (3, 3), 4]
            assert bob.told("a:b") == [(1, 3), 4]

    async def test_what_a_subscriber_has_already_is_no_loss(self) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.hold_deliveries()
            await hub_kit.publish("a:b", 3)
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b", "earliest")
            epoch = next(iter((await hub_kit.broker.topics()).values())).epoch  # type: ignore[union-attr]
            hub_kit.hub.lose(Loss("a:b", Position(epoch, 1), 2, "expired"))
            await wait_all_tasks_blocked()
            assert ada.told("a:b") == [1, 2, 3]

    async def test_a_new_epoch_is_told_and_counted_from(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber()
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 2)
            hub_kit.hub.lose(Loss("a:b", Position("new", 0), 0, "epoch"))
            hub_kit.hub.deliver([Notification("a:b", "x", 0, Position("new", 1))])
            await wait_all_tasks_blocked()
            [*_, gap, message] = ada.messages
            assert (gap["op"], gap["from"], gap["to"], gap["epoch"], gap["reason"]) == ("gap", 0, 0, "new", "epoch")
            assert (message["epoch"], message["offset"]) == ("new", 1)

    async def test_on_a_topic_nobody_has_nothing_happens(self) -> None:
        async with open_hub() as hub_kit:
            hub_kit.hub.lose(Loss("a:b", Position("e", 1), 2, "expired"))
            hub_kit.hub.announce(Joined(topic="a:b", user="u", session="s"))
            assert not hub_kit.hub.registry.topics


class TestReach:
    async def test_what_reaches_this_node_alone_is_asked_for_again(self) -> None:
        async with open_hub(policy("a:b", history=0)) as hub_kit:
            hub_kit.broker.scope = "node"
            ada, bob, eve = (hub_kit.subscriber(name) for name in ("ada", "bob", "eve"))
            assert (await ada.subscribe("a:b")).standing.scope == "node"
            hub_kit.broker.scope = None
            assert (await bob.subscribe("a:b")).standing.scope is None
            assert (await eve.subscribe("a:b")).standing.scope is None
            assert hub_kit.broker.called("subscribe") == ["a:b", "a:b"]


class TestSessionsWhileTheyLive:
    async def saved(self, hub_kit: HubKit) -> int:
        return len(hub_kit.broker.called("save_session"))

    async def test_the_embedded_broker_is_not_bothered(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            await hub_kit.subscriber().subscribe("a:b")
            await trio.sleep(3600)
            assert await self.saved(hub_kit) == 0

    async def test_changes_are_saved_at_once_and_together(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            ada = hub_kit.subscriber("ada", "s")
            await ada.subscribe("a:b")
            await wait_all_tasks_blocked()
            assert await self.saved(hub_kit) == 1
            await hub_kit.publish("a:b", 9)
            for offset in range(1, 10):
                hub_kit.hub.acknowledge(ada.subscriber, "a:b", offset)
            await ada.subscribe("c:d")
            await trio.sleep(SAVE_PAUSE_S * 1.5)
            assert await self.saved(hub_kit) == 2
            record = await hub_kit.broker.load_session(SessionId("s"), "ada")
            assert record is not None
            assert record.positions.keys() == {"a:b", "c:d"}
            assert record.positions["a:b"] == Position(top(hub_kit, "a:b").epoch, 9)

    async def test_without_changes_a_session_is_saved_before_it_expires(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            await hub_kit.subscriber().subscribe("a:b")
            await trio.sleep(300 * 10)
            assert 10 * REFRESHES_A_TTL - 1 <= await self.saved(hub_kit) <= 10 * REFRESHES_A_TTL + 1

    async def test_what_cannot_be_saved_is_saved_later(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            hub_kit.broker.fail("save_session", BrokerUnavailable("away"), times=5)
            await hub_kit.subscriber("ada", "s").subscribe("a:b")
            await trio.sleep(SAVE_AGAIN_S * 6)
            assert await self.saved(hub_kit) == 6
            assert await hub_kit.broker.load_session(SessionId("s"), "ada")

    async def test_a_session_that_another_node_has_ends_here(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            ada = hub_kit.subscriber("ada", "s")
            hub_kit.broker.lost_sessions.add(SessionId("s"))
            await ada.subscribe("a:b")
            await wait_all_tasks_blocked()
            assert ada.ended == [CloseCode.REPLACED]
            await ada.leave()
            await trio.sleep(1000)
            assert await self.saved(hub_kit) == 1
            assert len(hub_kit.hub.sessions) == 0

    async def test_one_that_left_is_saved_no_more(self, autojump_clock: MockClock) -> None:
        async with open_hub() as hub_kit:
            hub_kit.broker.is_shared = True
            ada = hub_kit.subscriber("ada", "s")
            await ada.subscribe("a:b")
            await wait_all_tasks_blocked()
            await ada.leave()
            await trio.sleep(1000)
            assert await self.saved(hub_kit) == 2
            assert len(hub_kit.hub.sessions) == 0


class TestOrders:
    async def test_a_session_is_given_up_with_all_it_had(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber("ada", "s")
            await ada.subscribe("a:b")
            await hub_kit.publish("a:b", 3)
            record = hub_kit.hub.take_over(SessionId("s"))
            assert record is not None
            assert record.positions == {"a:b": top(hub_kit, "a:b")}
            assert ada.ended == [CloseCode.REPLACED]
            await ada.leave()
            assert not hub_kit.broker.called("save_session")
            assert hub_kit.hub.take_over(SessionId("s")) is None

    async def test_a_session_is_ended(self) -> None:
        async with open_hub() as hub_kit:
            ada = hub_kit.subscriber("ada", "s")
            assert hub_kit.hub.end_session(SessionId("s")) is True
            assert hub_kit.hub.end_session(SessionId("t")) is False
            assert ada.ended == [CloseCode.FORBIDDEN]

    @pytest.mark.parametrize(
        ("revocation", "ended"),
        [
            (Revocation(until_s=2e9, token_id="j1"), {"ada"}),
            (Revocation(until_s=2e9, user="bob", before_s=100.0), {"bob"}),
            (Revocation(until_s=2e9, user="bob", before_s=50.0), set()),
            (Revocation(until_s=2e9, user="nobody", before_s=100.0), set()),
        ],
    )
    async def test_who_holds_a_revoked_token_is_ended(self, revocation: Revocation, ended: set[str]) -> None:
        async with open_hub() as hub_kit:
            ada, bob, eve = (hub_kit.subscriber(name) for name in ("ada", "bob", "eve"))
            ada.subscriber.identity = Identity("ada", token_id="j1")
            bob.subscriber.identity = Identity("bob", token_id="j2", issued_s=99.0)
            await hub_kit.hub.revoke(revocation)
            assert {one.subscriber.user for one in (ada, bob, eve) if one.ended == [CloseCode.UNAUTHORIZED]} == ended
            assert list(hub_kit.hub.revocations) == [revocation]
