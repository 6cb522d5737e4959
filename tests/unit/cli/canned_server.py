"""A small HTTP server that answers what a test wants."""

import re

import trio


class Server:
    """Answers every request with `answer` and keeps what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer = b""
        self.asked: list[bytes] = []

    def answers(self, body: bytes, status: str = "200 OK") -> None:
        self.answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.asked.append(await _receive_request(stream))
        await stream.send_all(self.answer)
        await stream.aclose()


async def _receive_request(stream: trio.SocketStream) -> bytes:
    """Take a head, and as much body as it announces."""
    request = b""
    while b"\r\n\r\n" not in request or len(request) < _announced_bytes(request):
        request += await stream.receive_some(65536)
    return request


def _announced_bytes(request: bytes) -> int:
    head, end, _ = request.partition(b"\r\n\r\n")
    found = re.search(rb"\r\nContent-Length: (\d+)", head)
    return len(head + end) + (int(found[1]) if found else 0)
