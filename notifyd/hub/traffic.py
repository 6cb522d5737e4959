"""What comes in from clients and goes out to them, by form, in plain numbers: the fan-out has no time for more."""

from collections.abc import Sequence

from protocol.framing import Encoding, Form

FORMS = tuple(Form)


class Traffic:
    """Messages and their bytes since the start, each a list by `Form`.

    What comes in is counted as it is read, with the bytes of its payload. What goes out is counted as it is put into
    the queue of a connection, with the bytes of its frame. Heartbeats and control frames are no messages.
    """

    __slots__ = ("bytes_in", "bytes_out", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.messages_in = [0] * len(FORMS)
        self.bytes_in = [0] * len(FORMS)
        self.messages_out = [0] * len(FORMS)
        self.bytes_out = [0] * len(FORMS)

    def came_in(self, form: Form, size_bytes: int) -> None:
        """Count a message that a client sent."""
        self.messages_in[form] += 1
        self.bytes_in[form] += size_bytes

    def goes_out(self, form: Form, size_bytes: int, receivers: int = 1) -> None:
        """Count a message for as many connections of one form."""
        self.messages_out[form] += receivers
        self.bytes_out[form] += size_bytes * receivers


def form_of(own: Form, encoding: Encoding) -> Form:
    """Return the form of a message in this encoding that came by the transport of `own`."""
    return FORMS[(own & ~1) | encoding]


def labels_of(form: Form) -> tuple[str, str]:
    """Return a form as the labels `transport` and `encoding`."""
    return ("device" if form.is_device else "websocket", form.encoding.name.lower())


def by_labels(amounts: Sequence[int]) -> dict[tuple[str, ...], float]:
    """Turn a list by form into what a metric with the labels `transport` and `encoding` shows."""
    return {labels_of(form): amount for form, amount in zip(FORMS, amounts, strict=True)}
