"""What the fan-out promises whatever happens in between: each connection gets what a plain queue of its own would give.

Hypothesis does anything in any order: messages of several topics, some without the publisher's own connection, losses,
replies, subscriptions that come, catch up and go, sockets that take any number of bytes, hold them, or break. The model
is one list of frames a connection; of one with a small budget, whose messages are let go, it asks that none is untold.
"""

from collections import defaultdict
from contextlib import suppress

import hypothesis.strategies as st
import trio
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trio.testing import MockClock

from notifyd.broker.base import Loss
from notifyd.clock import Clock
from notifyd.errors import StreamBroken
from notifyd.events import NoEvents
from notifyd.hub.backlog import Lost
from notifyd.hub.delivery import Delivery
from notifyd.hub.fanout import Fanout
from notifyd.hub.outbox import JOINED_BYTES
from notifyd.hub.registry import Registry, Subscriber
from notifyd.hub.topic_counts import TopicCounts
from notifyd.hub.traffic import Traffic
from notifyd.model import Notification, SessionId
from notifyd.settings import Overflow, TopicPolicy
from protocol.errors import CloseCode
from protocol.framing import Form
from protocol.position import Position
from protocol.topics import Pattern
from tests.kit.frames import FrameReader
from tests.kit.scripted_sink import EPOCH, ScriptedSink, make_delivery, make_outbox

TOPICS = ("a:a", "a:b")
POLICY = TopicPolicy(match=Pattern("**"), overflow=Overflow.GAP)
LARGE_BYTES, SMALL_BYTES = 10**9, 4000
FORMS = [Form.DEVICE_JSON, Form.DEVICE_JSON, Form.WEBSOCKET_JSON, Form.WEBSOCKET_MSGPACK, Form.DEVICE_JSON]
SMALL = 4
"""The number of the one with a small budget."""

NUMBERS = st.integers(0, len(FORMS) - 1)
A_TOPIC = st.sampled_from(TOPICS)


class Peer:
    """A connection, and what its client is to get."""

    def __init__(self, number: int) -> None:
        self.form = FORMS[number]
        self.sink = ScriptedSink()
        self.outbox = make_outbox(self.sink, self.form, SMALL_BYTES if number == SMALL else LARGE_BYTES)
        self.subscriber = Subscriber(SessionId(f"s{number}"), "ada", self.outbox, self, since_ms=0)
        self.expected = bytearray()
        self.kept: dict[str, bytes] = {}
        self.is_broken = False

    def end(self, code: CloseCode, message: str) -> None:
        """Do nothing: what the outbox takes is what counts here."""

    def expect(self, topic: str, frame: bytes) -> None:
        """Wait for a frame of a topic: at once, or when the subscription has caught up."""
        if topic in self.kept:
            self.kept[topic] += frame
        elif topic in self.subscriber.subscriptions:
            self.expected += frame


class FanoutPromises(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(lambda _topic: POLICY)
        self.traffic = Traffic()
        self.fanout = Fanout(
            self.registry,
            traffic=self.traffic,
            topic_counts=TopicCounts(),
            events=NoEvents(),
            clock=Clock(monotonic_s=lambda: 0.0),
        )
        self.peers = [Peer(number) for number in range(len(FORMS))]
        for number, peer in enumerate(self.peers):
            self.registry.attach(peer.subscriber)
            for topic in TOPICS[number % 2 :]:
                self.registry.go_live(self.registry.add(peer.subscriber, topic))
        self.newest: dict[str, int] = defaultdict(int)

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(
        topic=A_TOPIC,
        count=st.integers(1, 9),
        size=st.one_of(st.integers(0, 300), st.just(JOINED_BYTES // 4)),
        origin=st.none() | NUMBERS,
    )
    def deliver(self, topic: str, count: int, size: int, origin: int | None) -> None:
        session = None if origin is None else self.peers[origin].subscriber.session
        batch = []
        for _ in range(count):
            self.newest[topic] += 1
            position = Position(EPOCH, self.newest[topic])
            batch.append(Notification(topic, "x" * size, 1_790_000_000_000, position, origin=session))
            delivery = Delivery.of(batch[-1], POLICY)
            for number, peer in enumerate(self.peers):
                if number != origin:
                    peer.expect(topic, delivery.frame(peer.form))
        self.fanout.deliver(batch)

    @rule(topic=A_TOPIC, count=st.integers(1, 5))
    def lose(self, topic: str, count: int) -> None:
        if topic in self.registry.topics and not self.registry.topics[topic].catching_up:
            first = Position(EPOCH, self.newest[topic] + 1)
            self.newest[topic] += count
            lost = Lost(topic, first, self.newest[topic], "expired")
            for peer in self.peers:
                peer.expect(topic, lost.frame(peer.form))
            self.fanout.lose(Loss(topic, first, self.newest[topic], "expired"))

    @rule(number=NUMBERS, at_once=st.booleans())
    def reply(self, number: int, at_once: bool) -> None:
        peer = self.peers[number]
        frame = make_delivery("own", None).frame(peer.form)
        if not peer.outbox.calls.overflows[Overflow.DISCONNECT]:
            peer.expected += frame
        peer.outbox.put_frame(frame)
        if at_once:
            peer.outbox.flush()

    @rule(number=NUMBERS, topic=A_TOPIC, catches_up=st.booleans())
    def subscribe(self, number: int, topic: str, catches_up: bool) -> None:
        peer = self.peers[number]
        if topic not in peer.subscriber.subscriptions:
            subscription = self.registry.add(peer.subscriber, topic)
            if catches_up:
                peer.kept[topic] = b""
            else:
                self.registry.go_live(subscription)

    @rule(number=NUMBERS, topic=A_TOPIC)
    def catch_up(self, number: int, topic: str) -> None:
        peer = self.peers[number]
        if topic in peer.kept:
            subscription = peer.subscriber.subscriptions[topic]
            peer.expected += peer.kept.pop(topic)
            for delivery in subscription.buffer or []:
                assert isinstance(delivery, Delivery)
                peer.outbox.put(delivery)
            self.registry.go_live(subscription)

    @rule(number=NUMBERS, topic=A_TOPIC)
    def unsubscribe(self, number: int, topic: str) -> None:
        self.registry.remove(self.peers[number].subscriber, topic)
        self.peers[number].kept.pop(topic, None)

    @rule()
    def flush(self) -> None:
        self.fanout.flush()

    @rule(number=NUMBERS, room=st.integers(0, 100_000))
    def block_after(self, number: int, room: int) -> None:
        self.peers[number].sink.room_bytes = room

    @rule(number=NUMBERS, sends=st.integers(1, 3))
    def hold_ciphertext(self, number: int, sends: int) -> None:
        self.peers[number].sink.holds = sends

    @rule(number=NUMBERS, room=st.integers(1, 200_000))
    def make_room_and_drain(self, number: int, room: int) -> None:
        self.peers[number].sink.allow(room)
        self.drain(self.peers[number])

    @rule(number=st.sampled_from([0, 2]))
    def break_off(self, number: int) -> None:
        self.peers[number].is_broken = True
        self.peers[number].sink.break_off()

    def drain(self, peer: Peer) -> None:
        async def drain_for_a_while() -> None:
            with trio.move_on_after(1), suppress(StreamBroken):
                await peer.outbox.drain(10)

        trio.run(drain_for_a_while, clock=MockClock(autojump_threshold=0))

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def what_leaves_is_what_was_next(self) -> None:
        for peer in self.peers[:SMALL]:
            left = bytes(peer.sink.taken)
            assert peer.expected.startswith(left)
            peer.sink.taken.clear()
            del peer.expected[: len(left)]
            if not self.fanout._touched and not peer.outbox.queued_bytes and not peer.is_broken:
                assert not peer.expected, "a flush leaves nothing but what a socket did not take"

    def teardown(self) -> None:
        self.fanout.flush()
        for peer in self.peers:
            peer.outbox.flush()
            peer.sink.allow(10**9)
            self.drain(peer)
        self.what_leaves_is_what_was_next()
        for peer in self.peers:
            assert not peer.outbox.queued_bytes
            assert not peer.expected or peer.is_broken or peer is self.peers[SMALL]
        self.nothing_is_let_go_untold(self.peers[SMALL])

    def nothing_is_let_go_untold(self, peer: Peer) -> None:
        """Of each topic come the offsets that a large budget would have brought, or gaps over them, in order."""
        if not peer.outbox.calls.overflows[Overflow.DISCONNECT]:
            for topic in TOPICS:
                got, wanted = (offsets_of(peer.form, data, topic) for data in (peer.sink.taken, peer.expected))
                assert got == wanted


def offsets_of(form: Form, data: bytearray, topic: str) -> list[int]:
    """Read which offsets of a topic were brought, or told to be lost."""
    reader = FrameReader(form)
    reader.receive(bytes(data))
    assert not reader.rest, "the stream ends inside a frame"
    offsets: list[int] = []
    for message in reader.frames:
        if message["topic"] == topic:
            first, last = (message["from"], message["to"]) if message["op"] == "gap" else (message["offset"],) * 2
            offsets += range(first, last + 1)
    return offsets


TestFanoutPromises = FanoutPromises.TestCase
