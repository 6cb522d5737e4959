"""One feed: what its connection brings is handed over, what is asked of its server goes out in the right pieces."""

import time
from collections.abc import Callable, Sequence

import pytest
import trio
from hiredis import PushNotification
from trio.testing import MockClock, assert_no_checkpoints

from notifyd.broker.redis.feed import ASK_AGAIN_CAP_S, PROBE_AFTER_S, ChannelFeed
from notifyd.broker.redis.link import LinkLost
from notifyd.errors import BrokerUnavailable
from tests.kit.scripted_servers import LINK_DEADLINE_S, ScriptedServers
from tests.kit.services import open_services
from tests.recorded_events import RecordedEvents


class Owner:
    """Whom the feed tells: keeps everything."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self.batches: list[list[tuple[str, bytes]]] = []
        self.calls: list[tuple[str, object]] = []

    def on_messages(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.batches.append([*messages])

    def confirmed(self, feed: ChannelFeed, channels: Sequence[str]) -> None:
        self.calls.append(("confirmed", sorted(channels)))

    def refused(self, feed: ChannelFeed, channels: Sequence[str], failure: BrokerUnavailable) -> None:
        self.calls.append(("refused", str(failure)))

    def moved(self, feed: ChannelFeed, channels: Sequence[str]) -> None:
        self.calls.append(("moved", sorted(channels)))

    def lost(self, feed: ChannelFeed) -> None:
        self.calls.append(("lost", feed.away))


def make(*, sharded: bool = False) -> tuple[ChannelFeed, Owner, ScriptedServers]:
    servers, owner = ScriptedServers("a", "b", sharded=sharded), Owner()
    feed = ChannelFeed("a", servers, owner, deadline_s=1.0, events=RecordedEvents())  # type: ignore[arg-type]
    return feed, owner, servers


def want(feed: ChannelFeed, owner: Owner, *channels: str) -> None:
    for channel in channels:
        owner.names[channel.encode()] = channel
        feed.want(channel)


def test_pushes_of_one_read_become_one_batch_and_nothing_else_comes_through() -> None:
    feed, owner, _ = make()
    owner.names = {b"x": "x", b"y": "y"}
    pushes = [
        [b"subscribe", b"x", 1],
        [b"message", b"x", b"1"],
        [b"message", b"not wanted", b"2"],
        [b"pmessage", b"*", b"x", b"3"],
        [b"message", b"y", b"4"],
        [b"unsubscribe", None, 0],
    ]

    async def take() -> None:
        with assert_no_checkpoints():
            feed._take(pushes)
            feed._take([])

    trio.run(take)
    assert owner.batches == [[("x", b"1"), ("y", b"4")]]


@pytest.mark.measured
def test_a_message_costs_less_than_a_microsecond_here(report: Callable[[str], None]) -> None:
    feed, owner, _ = make()
    owner.names = {b"notifyd:channel:{topic%d}" % number: f"topic{number}" for number in range(1000)}
    reads = [
        [PushNotification([b"message", bytes(channel), b"x" * 200]) for channel in owner.names] for _ in range(100)
    ]
    best_s = min(trio.run(_measure, feed, owner, reads) for _ in range(3))
    report(f"feed: {best_s * 1e9 / 100_000:.0f} ns a message handed over")
    assert best_s / 100_000 < 1e-6


async def _measure(feed: ChannelFeed, owner: Owner, reads: list[list[list[bytes]]]) -> float:
    owner.batches.clear()
    began_s = time.perf_counter()
    for pushes in reads:
        feed._take(pushes)
    return time.perf_counter() - began_s


async def test_channels_of_different_slots_go_into_commands_of_their_own(autojump_clock: MockClock) -> None:
    feed, owner, servers = make(sharded=True)
    want(feed, owner, "x{1}", "y{1}", "z")
    for channel in ("x{1}", "z"):
        servers.move(channel, "a", told=True)
    async with open_services() as services:
        services.launch("feed", feed.run)
        await trio.sleep(0.5)
        batches = sorted(sorted(channels) for _, channels in servers.links[0].commands)
        assert batches == [["x{1}", "y{1}"], ["z"]]
        assert [call for call in owner.calls if call[0] != "confirmed"] == []
        assert feed.channels.confirmed == {"x{1}", "y{1}", "z"}
    assert owner.calls[-1] == ("lost", "was stopped")


async def test_a_feed_serves_once_everything_was_asked_for(autojump_clock: MockClock) -> None:
    feed, owner, _ = make()
    want(feed, owner, *(f"c{number}" for number in range(1100)))
    async with trio.open_nursery() as nursery:
        await nursery.start(feed.run)
        assert len(feed.channels.confirmed) == 1100
        assert feed.problem() == ""
        nursery.cancel_scope.cancel()


async def test_why_a_connection_ended_is_told_and_kept(autojump_clock: MockClock) -> None:
    feed, owner, servers = make()
    assert feed.problem() == "no messages from a: connecting"
    servers.nodes["a"].crash()
    with pytest.raises(ExceptionGroup) as caught:
        await feed.run()
    assert caught.group_contains(LinkLost, match="connection refused")
    assert owner.calls == [("lost", "connection refused")]
    assert feed.problem() == "no messages from a: connection refused"


async def test_a_link_that_is_full_is_asked_again_soon(autojump_clock: MockClock) -> None:
    feed, owner, servers = make()
    servers.nodes["a"].is_full = True
    want(feed, owner, "x")
    async with open_services() as services:
        services.launch("feed", feed.run)
        await trio.sleep(1)
        assert feed.channels.confirmed == set()
        servers.nodes["a"].is_full = False
        await trio.sleep(ASK_AGAIN_CAP_S)
        assert owner.calls == [("confirmed", ["x"])]
        assert servers.links[0].runs == 1


async def test_a_probe_that_is_slow_to_arrive_but_in_time_ends_nothing(autojump_clock: MockClock) -> None:
    feed, _, servers = make()
    feed.probe_on("probe")
    async with open_services() as services:
        services.launch("feed", feed.run)
        await trio.sleep(1)
        servers.delay_s = lambda: 0.2
        await trio.sleep(10 * PROBE_AFTER_S)
        assert len(servers.executed) >= 8
        assert servers.links[0].runs == 1


async def test_a_feed_that_hears_nothing_of_its_probe_ends_its_connection_once(autojump_clock: MockClock) -> None:
    feed, _, servers = make()
    feed.probe_on("probe")
    async with open_services() as services:
        services.launch("feed", feed.run)
        await trio.sleep(1)
        servers.nodes["a"].forget()
        await trio.sleep(PROBE_AFTER_S + LINK_DEADLINE_S + 0.5)
        assert servers.links[0].reasons == ["a published a probe, but it did not come within 1 s"]
        assert servers.nodes["a"].subscribed == {"probe"}
