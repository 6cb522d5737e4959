"""A web server for a test's own pages, in the test's own event loop: what it serves may be changed while it runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tests.kit.redis_process import free_port

Page = str | Callable[[], str]


class PageServer:
    """`pages` are what is at each path: a text, or a function that makes one for each request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, Page] = {"/": "<!doctype html><link rel=icon href=data:,><title>test</title>"}

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the one request of a connection."""
        request = b""
        async with stream:
            try:
                while b"\r\n\r\n" not in request:
                    piece = await stream.receive_some()
                    if not piece:
                        return
                    request += piece
                await stream.send_all(self._answer(request.split()[1].decode()))
            except trio.BrokenResourceError:
                return  # a browser opens more connections than it uses

    def _answer(self, path: str) -> bytes:
        page = self.pages.get(path)
        status = "404 Not Found" if page is None else "200 OK"
        body = (page() if callable(page) else page or "").encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def open_page_server(port: int | None = None) -> AsyncIterator[PageServer]:
    """Serve on this port of 127.0.0.1, or a free one, for the length of the block."""
    server = PageServer(port or free_port())
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(server.port, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()
