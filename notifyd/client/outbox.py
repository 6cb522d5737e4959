"""What one connection still has to send. Filled without waiting, emptied by the connection's one writer."""

from collections.abc import Hashable

import trio

from protocol.codec import Frame


class ClientOutbox:
    """Frames in order, each under a key: a second frame under a waiting key takes the first one's place.

    So there is never more than one PING, one PONG and one acknowledgement a topic waiting, and of requests only those
    somebody waits for.
    """

    def __init__(self) -> None:
        self._frames: dict[Hashable, Frame] = {}
        self._changed = trio.Event()
        self._finished = False

    def put(self, key: Hashable, frame: Frame) -> None:
        """Queue a frame."""
        self._frames[key] = frame
        self._changed.set()

    def discard(self, key: Hashable) -> bool:
        """Take a frame back; False when it was taken for sending already."""
        return self._frames.pop(key, None) is not None

    def finish(self) -> None:
        """Let `take` end once everything that waits has been taken."""
        self._finished = True
        self._changed.set()

    async def take(self) -> list[Frame]:
        """Wait for frames and take them all; empty when finished. Cancelled, none is lost."""
        while not self._frames and not self._finished:
            self._changed = trio.Event()
            await self._changed.wait()
        frames = list(self._frames.values())
        self._frames.clear()
        return frames
