"""A node's subscriber over scripted servers, under a real supervisor, with everything it told.

async with open_subscriber("a", "b", sharded=True) as kit:
    await kit.subscriber.subscribe("x")
    kit.servers.publish("x", b"1")
    await kit.settle()
    assert kit.messages == [("x", b"1")]
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from notifyd.broker.redis.subscriber import ChannelSubscriber
from notifyd.clock import Clock
from notifyd.supervision import Branch, open_branch
from tests.kit.scripted_servers import ScriptedNode, ScriptedServers
from tests.recorded_events import RecordedEvents

DEADLINE_S = 1.0
PROBE = "probe"


class SubscriberKit:
    """What a test needs. `told` has messages and restored channels in the order they were told."""

    def __init__(self, servers: ScriptedServers, branch: Branch, events: RecordedEvents) -> None:
        self.servers = servers
        self.branch = branch
        self.events = events
        self.batches: list[list[tuple[str, bytes]]] = []
        self.restored: list[list[str]] = []
        self.subscriber = ChannelSubscriber(
            servers,  # type: ignore[arg-type]
            deadline_s=DEADLINE_S,
            probe_channel=PROBE,
            on_messages=self.take,
            on_restored=self.restore,
            events=events,
        )

    def take(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.batches.append([*messages])

    def restore(self, channels: Sequence[str]) -> None:
        self.restored.append([*channels])

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        return [message for batch in self.batches for message in batch]

    @property
    def node(self) -> ScriptedNode:
        """The first server."""
        return next(iter(self.servers.nodes.values()))

    def subscribed(self, home: str | None = None) -> set[str]:
        """What is subscribed at a server but its probes."""
        node = self.servers.nodes[home] if home else self.node
        return {channel for channel in node.subscribed if not channel.startswith(PROBE)}

    def told_restored(self) -> list[str]:
        """Return the channels told since, and start anew."""
        told = sorted(channel for batch in self.restored for channel in batch)
        self.restored.clear()
        return told

    def commands(self) -> list[tuple[str, list[str]]]:
        return [command for link in self.servers.links for command in link.commands]

    async def settle(self, seconds: float = 0.5) -> None:
        """Let some time pass: enough for what is under way, not for a probe."""
        await trio.sleep(seconds)


@asynccontextmanager
async def open_subscriber(*homes: str, **options: Any) -> AsyncIterator[SubscriberKit]:
    """Start a subscriber; `options` are those of ScriptedServers."""
    events = RecordedEvents()
    async with open_branch("broker", events=events, clock=Clock(), longest_wait_s=2.0) as branch:
        kit = SubscriberKit(ScriptedServers(*homes, **options), branch, events)
        await kit.subscriber.start(branch)
        yield kit
    assert [line for line in events.logged("service_failed") if "traceback" in line] == []
