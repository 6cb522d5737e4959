"""One message on its way to many: written down once per encoding, wrapped once per form, shared by every receiver."""

from typing import cast

from msgspec import UNSET, Raw

from notifyd.broker.base import Page
from notifyd.model import Notification
from notifyd.settings import Overflow, TopicPolicy
from protocol.framing import Encoding, Form, to_wire
from protocol.messages import Entry, HistoryReply, Joined, Left, Message, encode
from protocol.position import Position

_FORMS = len(Form)

HISTORY_REPLY_BYTES = 1024 * 1024
"""What a history reply holds: a thousand usual messages, and no more of the largest than a client can take at once."""


class Delivery:
    """A push for a topic's subscribers, encoded lazily.

    `position` is None for what has no place in a history; `overflow` says what happens at a subscriber whose queue is
    full. `frames[form]` holds the bytes of each form once somebody needed them.
    """

    __slots__ = ("_message", "_payloads", "_time_ms", "frames", "overflow", "position", "topic")

    def __init__(
        self, message: Message | Joined | Left, overflow: Overflow, time_ms: int, position: Position | None = None
    ) -> None:
        self.topic = message.topic
        self.position = position
        self.overflow = overflow
        self.frames: list[bytes | None] = [None] * _FORMS
        self._payloads: list[bytes | None] = [None, None]
        self._message = message
        self._time_ms = time_ms

    @classmethod
    def of(cls, notification: Notification, policy: TopicPolicy) -> "Delivery":
        """Make the delivery of a notification on a topic with this policy."""
        message = Message(topic=notification.topic, data=notification.data, time=notification.time_ms)
        _fill(message, notification, policy)
        return cls(message, policy.overflow, notification.time_ms, notification.position)

    def frame(self, form: Form) -> bytes:
        """Return the bytes for a form, encoding them the first time."""
        frame = self.frames[form]
        if frame is None:
            encoding = form.encoding
            payload = self._payloads[encoding]
            if payload is None:
                payload = self._payloads[encoding] = encode(self._message, encoding)
            frame = self.frames[form] = to_wire(form, payload, self._time_ms)
        return frame


def to_history_reply(
    request_id: int,
    topic: str,
    page: Page,
    encoding: Encoding,
    *,
    policy: TopicPolicy,
    room_bytes: int = HISTORY_REPLY_BYTES,
) -> HistoryReply:
    """Write a page as a history reply, as far as it goes into `room_bytes`: at least one message does.

    `policy` is the topic's. Each message is encoded once, to know its size, and put into the reply as it is.
    """
    entries: list[Raw] = []
    for notification in page.messages:
        entry = encode(_to_entry(notification, policy), encoding)
        room_bytes -= len(entry)
        if entries and room_bytes < 0:
            break
        entries.append(Raw(entry))
    return HistoryReply(
        id=request_id,
        topic=topic,
        messages=cast("list[Entry]", entries),
        more=page.more or len(entries) < len(page.messages),
        epoch=UNSET if page.top is None else page.top.epoch,
    )


def _to_entry(notification: Notification, policy: TopicPolicy) -> Entry:
    entry = Entry(topic=notification.topic, data=notification.data, time=notification.time_ms)
    _fill(entry, notification, policy)
    return entry


def _fill(target: Message | Entry, notification: Notification, policy: TopicPolicy) -> None:
    """Add what not every message has."""
    position = notification.position
    if position is not None:
        target.epoch, target.offset = position.epoch, position.offset
    if notification.sender is not None:
        target.sender = notification.sender
    if notification.trace is not None and policy.trace:
        target.trace = notification.trace
