"""What the two transports have in common, seen from the client: whole frames out, whole frames in."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from protocol.codec import Frame
from protocol.errors import CloseCode


class LinkClosed(Exception):
    """The other side ended the link, or the network did (`code` None). `reason` is for people.

    `retry_after_s` is how long the server wants to be left alone, where it said so.
    """

    def __init__(self, reason: str, code: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.retry_after_s = retry_after_s


Heard = Callable[[], None]
"""Called for every arrival of bytes, whole frame or not: any byte is a sign of life."""


class ClientLink(Protocol):
    """An open transport. One task sends, one receives; both raise LinkClosed when it is over.

    A cancelled `send` may have sent half of a frame: whoever cancels one gives the link up.
    """

    async def send(self, frames: Sequence[Frame]) -> None:
        """Send frames in order."""

    async def receive(self) -> Iterable[Frame]:
        """Wait for bytes; return the frames they completed, perhaps none.

        Going through them raises RemoteProtocolError where the bytes stop being frames. Cancelled, no frame is lost.
        """

    async def close(self, code: CloseCode) -> None:
        """End the link in order, after everything sent. The caller bounds the time it may take."""
