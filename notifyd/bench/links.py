"""One client of a load, from its socket to the session: non-blocking, and no more state than it needs.

A link is told by the worker's loop when its socket is ready. Whatever ends it is raised as LinkEnded or OSError, and
the loop hands that to `fail`.
"""

import errno
import os
import socket
import ssl
import time
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

from notifyd.bench.inbox import HeardMessage, Inbox, LinkEnded, read_heard
from protocol.codec import Frame, FrameType
from protocol.messages import ClientInfo, Connect, Subscribe
from protocol.position import Position

if TYPE_CHECKING:
    from notifyd.bench.worker import LoadWorker

_CONNECT_ID, _SUBSCRIBE_ID = 1, 2
_CLIENT = ClientInfo(name="notifyd bench")
_RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER with no time: closing resets (socket(7))."""

_BIND_ADDRESS_NO_PORT = 24
"""ip(7): the port is chosen at connect, so that it need be free for that peer alone. Python has no name for it."""

_LINKS_A_SOURCE = 20_000
"""Each address of loopback has its own ports: some 28,000 (ip(7), ip_local_port_range)."""

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_EXHAUSTED = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors", errno.EADDRNOTAVAIL: "ports"}


class LoadLink:
    """A client that connects and subscribes to `topic`, where it has one; what then comes is for its kind."""

    __slots__ = (
        "_head",
        "_is_watched_for_writing",
        "_unsent",
        "began_ns",
        "inbox",
        "is_open",
        "number",
        "position",
        "session",
        "socket",
        "topic",
        "worker",
    )

    def __init__(self, worker: "LoadWorker", number: int, topic: str | None) -> None:
        self.worker = worker
        self.number = number
        self.topic = topic
        self.socket: socket.socket | None = None
        self.is_open = False
        self.began_ns = 0
        self.session: str | None = None
        self.position: Position | None = None
        self.inbox = Inbox(is_device=worker.is_device)
        self._head = b""
        self._unsent = b""
        self._is_watched_for_writing = False

    # --- connecting ---------------------------------------------------------------------------------------------------

    def start(self, began_ns: int) -> None:
        """Begin to connect; `began_ns` is what the time until it is open counts from. Raises OSError."""
        target = self.worker.plan.target
        self.began_ns = began_ns
        self.inbox = Inbox(is_device=self.worker.is_device)
        self._head = self._unsent = b""
        self._is_watched_for_writing = False
        family = socket.AF_INET6 if ":" in target.ip else socket.AF_INET
        self.socket = connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.ip.startswith("127.") and self.number >= _LINKS_A_SOURCE:
            connecting.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            connecting.bind((f"127.0.0.{1 + self.number // _LINKS_A_SOURCE}", 0))
        failure = connecting.connect_ex((target.ip, target.port))
        if failure not in (0, errno.EINPROGRESS):
            raise OSError(failure, os.strerror(failure))
        self.worker.watch(self, self._connected, EPOLLOUT)

    def _connected(self, _mask: int) -> None:
        connected = self._socket
        failure = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
        if (context := self.worker.tls) is None:
            self._greet()
            return
        self.worker.handlers[connected.fileno()] = self._shake_hands
        self.socket = context.wrap_socket(
            connected, server_hostname=self.worker.plan.target.host, do_handshake_on_connect=False
        )
        self._shake_hands(EPOLLOUT)

    def _shake_hands(self, _mask: int) -> None:
        assert isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self.worker.watch(self, self._shake_hands, EPOLLIN)
        except ssl.SSLWantWriteError:
            self.worker.watch(self, self._shake_hands, EPOLLOUT)
        else:
            self._greet()

    def _greet(self) -> None:
        if self.worker.is_device:
            self._open_session()
        else:
            self.worker.watch(self, self._upgraded, EPOLLIN)
            self.send(self.worker.upgrade)

    def _upgraded(self, mask: int) -> None:
        """Read the answer to the upgrade. It is an answer of a few hundred bytes."""
        if mask & EPOLLOUT:
            self._flush()
        data = self._receive_bytes()
        if data is None:
            return
        head, blank, rest = (self._head + data).partition(b"\r\n\r\n")
        if not blank:
            self._head = head
            return
        status = head.split(b" ", 2)[1:2]
        if status != [b"101"]:
            raise LinkEnded(f"HTTP {status[0].decode(errors='replace')[:3]}" if status else "bad handshake")
        self._head = b""
        self._open_session()
        self._hear(rest)

    def _open_session(self) -> None:
        load, dialect = self.worker.plan.load, self.worker.dialect
        resumes = self.session is not None
        positions = {self.topic: self.position} if resumes and self.topic and self.position else None
        connect = Connect(
            id=_CONNECT_ID,
            token=load.token,
            session=self.session,
            client=_CLIENT,
            heartbeat=load.heartbeat_s,
            positions=positions,
        )
        request = dialect.request(connect)
        if self.topic is not None and not resumes:
            request += dialect.request(Subscribe(id=_SUBSCRIBE_ID, topic=self.topic))
        self.worker.watch(self, self.ready, EPOLLIN)
        self.send(request)

    def _heard_while_opening(self, heard: HeardMessage) -> None:
        if heard.op == "error":
            raise LinkEnded(f"{heard.code} {heard.reason}")
        if heard.op == "connected":
            resumes, self.session = self.session is not None, heard.session
            if resumes:
                restored = (heard.topics or {}).get(self.topic or "")
                if not heard.resumed or restored is None or restored.recovered is not True:
                    raise LinkEnded("not recovered")
                self._open()
            elif self.topic is None:
                self._open()
        elif heard.op == "subscribed" and heard.id == _SUBSCRIBE_ID:
            self.position = Position(heard.epoch, heard.offset) if heard.epoch else None
            self._open()

    def _open(self) -> None:
        self.is_open = True
        self.worker.opened(self)
        self.opened()

    # --- open ---------------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Do what this kind of link does once it is open. Frames that have come already are read afterwards."""

    def heard(self, heard: HeardMessage) -> None:
        """Take a message."""

    def answered(self, stamp: int) -> None:
        """Take a PONG with this time stamp."""

    def ready(self, mask: int) -> None:
        """Do what the socket is ready for."""
        if mask & EPOLLOUT:
            self._flush()
        data = self._receive_bytes()
        if data is not None:
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        self.inbox.receive(data)
        while (frame := self.inbox.next_frame()) is not None:
            self._take_frame(frame)

    def _take_frame(self, frame: Frame) -> None:
        if frame.type is FrameType.PING:
            self.send(self.worker.dialect.heartbeat(FrameType.PONG, frame.timestamp_ms))
        elif frame.type is FrameType.PONG:
            self.answered(frame.timestamp_ms)
        elif self.is_open:
            heard = read_heard(frame)
            if heard.op == "error" and not heard.id:
                raise LinkEnded(f"closed {heard.code}")
            self.heard(heard)
        else:
            self._heard_while_opening(read_heard(frame))

    def beat(self, stamp: int) -> None:
        """Send a PING with this time stamp."""
        self.send(self.worker.dialect.heartbeat(FrameType.PING, stamp))

    # --- the socket ---------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> socket.socket:
        assert self.socket is not None
        return self.socket

    def send(self, data: bytes) -> None:
        """Send, now or as soon as the socket takes it. Raises OSError."""
        if self._unsent:
            self._unsent += data
            return
        self._unsent = data
        self._flush()

    def _flush(self) -> None:
        """Send what is not sent yet, as far as it goes, and watch for more room only while some is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except WOULD_BLOCK:
            pass
        if bool(self._unsent) is not self._is_watched_for_writing:
            self._is_watched_for_writing = bool(self._unsent)
            handler = self.worker.handlers[self._socket.fileno()]
            self.worker.watch(self, handler, EPOLLIN | (EPOLLOUT if self._unsent else 0))

    def _receive_bytes(self) -> bytes | None:
        """Return what has come; None of nothing. Raises LinkEnded at the end."""
        space = self.worker.arrivals.space
        try:
            size = self._socket.recv_into(space)
        except WOULD_BLOCK:
            return None
        if not size:
            raise LinkEnded("closed")
        return bytes(space[:size])

    def reset(self) -> None:
        """Cut the connection, without a word."""
        if self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close()

    def close(self) -> None:
        """Close the socket, if there is one."""
        self.is_open = False
        if self.socket is not None:
            self.worker.forget(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def fail(self, failure: LinkEnded | OSError) -> None:
        """End the link for this reason, which is counted."""
        if isinstance(failure, OSError) and failure.errno in _EXHAUSTED:
            self.worker.exhausted = _EXHAUSTED[failure.errno]
        was_open = self.is_open
        self.close()
        self.worker.failed(self, name_of(failure), was_open=was_open)


def name_of(failure: LinkEnded | OSError) -> str:
    """Name a kind of error."""
    names: dict[type, str] = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset",
        BrokenPipeError: "reset",
    }
    if isinstance(failure, LinkEnded):
        return str(failure)
    if isinstance(failure, ssl.SSLError):
        return f"TLS: {failure.reason or 'failed'}".lower().replace("_", " ").replace("tls", "TLS", 1)
    if type(failure) in names:
        return names[type(failure)]
    return os.strerror(failure.errno).lower() if failure.errno else "failed"


def now() -> int:
    """Return the time on the clock that time stamps are of."""
    return time.monotonic_ns()
