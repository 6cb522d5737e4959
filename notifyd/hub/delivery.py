"""One message on its way to many: written down once per encoding, wrapped once per form, shared by every receiver."""

from notifyd.model import Notification
from notifyd.settings import Overflow
from protocol.framing import Form, to_wire
from protocol.messages import Entry, Joined, Left, Message, encode
from protocol.position import Position

_FORMS = len(Form)


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
    def of(cls, notification: Notification, overflow: Overflow) -> "Delivery":
        """Make the delivery of a notification."""
        return cls(_to_message(notification), overflow, notification.time_ms, notification.position)

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


def to_entry(notification: Notification) -> Entry:
    """Write a notification as an entry of a history reply."""
    entry = Entry(topic=notification.topic, data=notification.data, time=notification.time_ms)
    _add_position_and_sender(entry, notification)
    return entry


def _to_message(notification: Notification) -> Message:
    message = Message(topic=notification.topic, data=notification.data, time=notification.time_ms)
    _add_position_and_sender(message, notification)
    return message


def _add_position_and_sender(target: Message | Entry, notification: Notification) -> None:
    position = notification.position
    if position is not None:
        target.epoch, target.offset = position.epoch, position.offset
    if notification.sender is not None:
        target.sender = notification.sender
