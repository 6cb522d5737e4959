"""Bugs, each put into the product for the time of one simulation: a simulation that does not find them finds nothing.

`MUTATIONS` has a context manager for each by its name. They replace single functions, as a slip of the hand would.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import trio

from notifyd.broker.base import Accepted, Page
from notifyd.broker.redis.broker import RedisBroker
from notifyd.broker.redis.channels import Channels
from notifyd.broker.redis.feed import ChannelFeed
from notifyd.broker.redis.history import RedisHistory
from notifyd.broker.redis.link import Link
from notifyd.broker.redis.membership import Membership
from notifyd.broker.redis.ordering import Ordering
from notifyd.broker.redis.presence import RedisPresence
from notifyd.broker.redis.replies import ReplyQueue
from notifyd.broker.redis.scripts import Script
from notifyd.errors import BrokerUnavailable
from notifyd.hub.fanout import Fanout
from notifyd.hub.recovery import CatchUp
from notifyd.policy.deduplication import Deduplication
from protocol.position import Continuity, Position

MUTATIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {}


def mutation(make: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Register a mutation under its function's name, as a sentence."""
    manager = contextmanager(make)
    MUTATIONS[make.__name__.replace("_", " ")] = manager
    return manager


def replaced(owner: Any, name: str, function: Any) -> AbstractContextManager[Any]:
    """Put another function in the place of a method."""
    return mock.patch.object(owner, name, function)


def silent(*_: Any, **__: Any) -> None:
    """Do nothing."""


# --- publishing -------------------------------------------------------------------------------------------------------


@mutation
def acknowledge_before_append() -> Iterator[None]:
    """Answer a publish though Redis did not."""
    publish = RedisHistory.publish

    async def eager(self: RedisHistory, topic: str, *arguments: Any, **fields: Any) -> Accepted:
        try:
            return await publish(self, topic, *arguments, **fields)
        except BrokerUnavailable:
            return Accepted(Position("hopefully", 1))

    with replaced(RedisHistory, "publish", eager):
        yield


@mutation
def forget_the_key() -> Iterator[None]:
    """Append what was appended already."""
    publish = RedisHistory.publish

    async def forgetful(self: RedisHistory, *arguments: Any, key: str | None, **fields: Any) -> Accepted:
        return await publish(self, *arguments, key=None, **fields)

    with replaced(RedisHistory, "publish", forgetful):
        yield


@mutation
def drop_the_reply_slot_of_a_cancelled_caller() -> Iterator[None]:
    """Hand the reply that comes for him to the next."""
    hand_out = ReplyQueue._hand_out

    def mistaken(self: ReplyQueue, *arguments: Any) -> None:
        self._waiting = deque(waiter for waiter in self._waiting if waiter.task is not None)
        hand_out(self, *arguments)

    with replaced(ReplyQueue, "_hand_out", mistaken):
        yield


@mutation
def wait_for_a_stalled_server() -> Iterator[None]:
    """Have no deadline."""

    async def patient(self: Link, replies: ReplyQueue) -> None:
        await trio.sleep_forever()

    with replaced(Link, "_watch", patient):
        yield


# --- order ------------------------------------------------------------------------------------------------------------


@mutation
def skip_the_recheck_after_a_reconnect() -> Iterator[None]:
    with replaced(RedisBroker, "_recheck", silent):
        yield


@mutation
def keep_duplicates_by_position() -> Iterator[None]:
    def eager(self: Ordering, track: Any) -> None:
        held, track.held = track.held or [], None
        if held:
            track.position = held[-1].position
            self._receiver.deliver(held)

    with replaced(Ordering, "_release", eager):
        yield


@mutation
def deliver_the_own_echo_twice() -> Iterator[None]:
    with replaced(Deduplication, "seen", lambda *_: False):
        yield


@mutation
def do_not_hold_what_is_behind_a_hole() -> Iterator[None]:
    """Deliver what comes, in the order in which it comes."""

    def careless(self: Ordering, notification: Any, position: Position, track: Any) -> bool:
        known = track.position
        return known is None or known.judge(position) is not Continuity.DUPLICATE

    with replaced(Ordering, "_is_next", careless):
        yield


@mutation
def treat_a_new_epoch_as_continuing() -> Iterator[None]:
    """Never begin one after a failover."""
    init = Script.__init__

    def edited(self: Script, *arguments: Any, **fields: Any) -> None:
        init(self, *arguments, **fields)
        assert "topic.epoch, topic.base = fresh, topic.offset" in self.text or "open_topic" not in self.text
        self.text = self.text.replace("topic.epoch, topic.base = fresh, topic.offset", "topic.base = topic.base")

    with replaced(Script, "__init__", edited):
        yield


@mutation
def take_a_new_epoch_for_the_old_one() -> Iterator[None]:
    """Go on in it at the offset that was next in the old one."""
    skip = Ordering._skip

    async def steady(self: Ordering, topic: str, track: Any, since: Position, page: Page) -> tuple[Position, Page]:
        start, page = await skip(self, topic, track, since, page)
        return (Position(start.epoch, since.offset) if start.epoch != since.epoch else start), page

    with replaced(Ordering, "_skip", steady):
        yield


@mutation
def forget_to_tell_the_gap() -> Iterator[None]:
    with replaced(Fanout, "lose", silent):
        yield


# --- subscribing ------------------------------------------------------------------------------------------------------


@mutation
def resubscribe_nothing_after_a_reconnect() -> Iterator[None]:
    """Believe that what was confirmed once stays so."""
    with replaced(Channels, "lose", silent):
        yield


@mutation
def do_not_buffer_between_history_and_live() -> Iterator[None]:
    read = CatchUp._read

    async def unbuffered(self: CatchUp, since: Any) -> Page:
        page = await read(self, since)
        self.subscription.buffer = []
        return page

    with replaced(CatchUp, "_read", unbuffered):
        yield


@mutation
def claim_that_all_was_recovered() -> Iterator[None]:
    read = RedisHistory.read

    async def sure(self: RedisHistory, *arguments: Any) -> Page:
        page = await read(self, *arguments)
        return Page(page.messages, page.top, continuous=True, more=page.more, base=page.base)

    with replaced(RedisHistory, "read", sure):
        yield


@mutation
def forget_the_gap_of_a_resumed_session() -> Iterator[None]:
    with replaced(CatchUp, "_tell_gap", silent):
        yield


@mutation
def do_not_probe_the_feed() -> Iterator[None]:
    async def trusting(self: ChannelFeed) -> None:
        await trio.sleep_forever()

    with replaced(ChannelFeed, "_probe", trusting):
        yield


# --- sessions and presence --------------------------------------------------------------------------------------------


@mutation
def save_no_session() -> Iterator[None]:
    async def nothing(self: RedisBroker, *_: Any) -> bool:
        return True

    with replaced(RedisBroker, "save_session", nothing):
        yield


@mutation
def let_the_old_node_remove_a_moved_member() -> Iterator[None]:
    """Remove a member whoever it belongs to by now."""
    remove = RedisPresence._remove

    async def ruthless(self: RedisPresence, topic: str, node: str, departures: Any, **fields: Any) -> None:
        for entry in await self._entries(topic):
            if entry.session in {session for session, _ in departures}:
                await remove(self, topic, entry.node, departures, **fields)

    with replaced(RedisPresence, "_remove", ruthless):
        yield


@mutation
def count_the_members_of_dead_nodes() -> Iterator[None]:
    async def all_of(self: Membership, topic: str) -> list[Any]:
        return await self._presence.members(topic, {entry.node for entry in await self._presence._entries(topic)})

    async def never(self: Membership, node: str) -> None:
        await trio.lowlevel.checkpoint()

    with replaced(Membership, "members", all_of), replaced(Membership, "_bury", never):
        yield


@mutation
def tell_nobody_who_is_there() -> Iterator[None]:
    async def away(self: Membership, topic: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        raise BrokerUnavailable("the broker is away")

    with replaced(Membership, "members", away):
        yield


@mutation
def never_write_again_what_could_not_be_written() -> Iterator[None]:
    async def idle(self: Membership) -> None:
        await trio.sleep_forever()

    with replaced(Membership, "_fulfil_forever", idle):
        yield
