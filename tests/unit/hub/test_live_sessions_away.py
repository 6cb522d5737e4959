"""Sessions that cannot be saved: they cost little while the broker is away, and none holds up the others."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from notifyd.errors import BrokerUnavailable
from notifyd.hub.live_sessions import SAVE_AGAIN_S, SAVES_AT_ONCE
from notifyd.model import SessionId
from tests.kit.hub_kit import HubKit, open_hub

SESSIONS = 10 * SAVES_AT_ONCE


async def subscribed(hub_kit: HubKit, count: int = SESSIONS) -> None:
    hub_kit.broker.is_shared = True
    for number in range(count):
        await hub_kit.subscriber("ada", f"s{number}").subscribe("a:b")


async def saved(hub_kit: HubKit, count: int = SESSIONS) -> int:
    records = [await hub_kit.broker.load_session(SessionId(f"s{number}"), "ada") for number in range(count)]
    return sum(record is not None for record in records)


async def test_while_the_broker_is_away_few_are_tried(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        hub_kit.broker.fail("save_session", BrokerUnavailable("away"), times=None)
        await subscribed(hub_kit)
        await wait_all_tasks_blocked()
        before = len(hub_kit.broker.called("save_session"))
        await trio.sleep(60)
        assert len(hub_kit.broker.called("save_session")) - before <= SAVES_AT_ONCE * 60 / SAVE_AGAIN_S
        hub_kit.broker.heal("save_session")
        await trio.sleep(2 * SAVE_AGAIN_S)
        assert await saved(hub_kit) == SESSIONS


async def test_one_that_cannot_be_saved_does_not_hold_up_the_others(autojump_clock: MockClock) -> None:
    async with open_hub() as hub_kit:
        save = hub_kit.broker.save_session
        refused = {SessionId(f"s{number}") for number in range(SAVES_AT_ONCE - 1)}

        async def save_some(record: object, ttl_s: float) -> bool:
            if record.session in refused:  # type: ignore[attr-defined]
                hub_kit.broker.calls.append(("refused", record.session))  # type: ignore[attr-defined]
                raise BrokerUnavailable("too large")
            return await save(record, ttl_s)  # type: ignore[arg-type]

        hub_kit.broker.save_session = save_some  # type: ignore[method-assign, assignment]
        await subscribed(hub_kit)
        await trio.sleep(2 * SAVE_AGAIN_S)
        assert await saved(hub_kit) == SESSIONS - len(refused)
        tried = len(hub_kit.broker.called("refused"))
        await trio.sleep(10 * SAVE_AGAIN_S)
        assert len(hub_kit.broker.called("refused")) - tried <= 11 * len(refused)
