"""A history reply is bounded in bytes, whatever was kept: a client asks for messages, not for hundreds of megabytes."""

import pytest

from notifyd.broker.base import Page
from notifyd.hub.delivery import HISTORY_REPLY_BYTES, to_history_reply
from notifyd.model import Notification
from protocol.codec import MAX_PAYLOAD_BYTES
from protocol.framing import Encoding
from protocol.messages import HistoryReply, decode_server_message, encode
from protocol.position import Position
from tests.kit.memory_node import policy


def _page(data: object, count: int, *, more: bool = False) -> Page:
    messages = [Notification("a", data, 1, Position("e", offset)) for offset in range(1, count + 1)]
    return Page(messages, Position("e", count), continuous=True, more=more)


def _read_back(page: Page, encoding: Encoding) -> tuple[HistoryReply, int]:
    written = encode(to_history_reply(7, "a", page, encoding, policy=policy("**")), encoding)
    reply = decode_server_message(written, encoding)
    assert isinstance(reply, HistoryReply)
    return reply, len(written)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_usual_page_is_told_whole(encoding: Encoding) -> None:
    reply, _ = _read_back(_page({"text": "hello"}, 1000), encoding)
    assert [entry.offset for entry in reply.messages] == list(range(1, 1001))
    assert (reply.more, reply.epoch, reply.id) == (False, "e", 7)
    assert _read_back(_page("x", 3, more=True), encoding)[0].more is True


@pytest.mark.parametrize("encoding", list(Encoding))
def test_large_messages_are_told_as_far_as_they_go_and_more_says_so(encoding: Encoding) -> None:
    reply, size_bytes = _read_back(_page("\x01" * 60_000, 1000), encoding)
    assert 1 <= len(reply.messages) < 1000
    assert reply.more is True
    assert size_bytes <= HISTORY_REPLY_BYTES + 1000


@pytest.mark.parametrize("encoding", list(Encoding))
def test_one_message_is_always_told_and_fits_a_frame(encoding: Encoding) -> None:
    reply, size_bytes = _read_back(_page("\x01" * (2 * 1024 * 1024), 2), encoding)
    assert len(reply.messages) == 1
    assert reply.more is True
    assert size_bytes <= MAX_PAYLOAD_BYTES
