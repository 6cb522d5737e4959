"""A small HTTP/1.1 client over Trio sockets and h11, for driving a listener as a stranger would."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h11
import trio


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """The parts of the one form of error; anything beside it fails."""
        (problem,) = [value for name, value in self.json.items() if name == "error"]
        assert set(problem) == {"code", "reason", "message"}
        assert self.headers["content-type"] == "application/json"
        return problem["code"], problem["reason"], problem["message"]


class Conversation:
    """One connection, kept for several requests."""

    def __init__(self, stream: trio.SocketStream, host: str) -> None:
        self.stream = stream
        self._host = host
        self._h11 = h11.Connection(h11.CLIENT)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> Answer:
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        await self._send(self._head(method, path, body, list(headers)))
        if body:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        return await self.receive()

    def _head(self, method: str, path: str, body: bytes | None, headers: list[tuple[str, str]]) -> h11.Request:
        given = {name.lower() for name, _ in headers}
        if "host" not in given:
            headers.insert(0, ("host", self._host))
        if body is not None and not given & {"content-length", "transfer-encoding"}:
            headers.append(("content-length", str(len(body))))
        return h11.Request(method=method, target=path, headers=headers)

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            await self.stream.send_all(data)

    async def receive(self) -> Answer:
        answer = Answer(0, {}, b"")
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return answer


class HttpClient:
    """Asks one listener, with a new connection for each question."""

    def __init__(self, port: int, host: str = "127.0.0.1", key: str | None = None) -> None:
        self.port = port
        self.host = host
        self.key = key

    async def open(self) -> Conversation:
        return Conversation(await trio.open_tcp_stream(self.host, self.port), f"{self.host}:{self.port}")

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> Answer:
        conversation = await self.open()
        if self.key is not None:
            headers = [*headers, ("authorization", f"Bearer {self.key}")]
        async with conversation.stream:
            return await conversation.ask(method, path, body, headers)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers=[(name.replace("_", "-"), value) for name, value in headers.items()])

    async def post(self, path: str, value: Any) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return await self.ask("POST", path, body, [("content-type", "application/json")])

    async def say(self, data: bytes) -> bytes:
        """Send bytes as they are, end the sending side, and return everything that comes back."""
        stream = await trio.open_tcp_stream(self.host, self.port)
        async with stream:
            await stream.send_all(data)
            await stream.send_eof()
            return b"".join([piece async for piece in stream])
