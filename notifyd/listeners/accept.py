"""The accept loop: takes clients off a listening socket, survives a full descriptor table, counts and refuses.

trio.serve_listeners is not used: its handler nursery is shared with the loop, and the loop is to stop for a drain while
its clients go on.
"""

import contextlib
import errno
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import trio

from notifyd.errors import ListenError, StreamBroken
from notifyd.events import Events
from notifyd.listeners.introduction import introduce
from notifyd.policy.admission import Admission
from notifyd.settings import Address, Network
from notifyd.transport.stream import SocketStream
from notifyd.transport.tls import TlsStream

BACKLOG = 4096
"""Connections the kernel may hold for us: a reconnect storm waits there instead of being refused."""

KERNEL_QUEUE_BYTES = 128 * 1024
"""What the kernel queues for a client that does not read, before our own queue with its budget: left alone, it is 4 MB
each, of memory that no limit of ours would see, and minutes until a slow client is noticed."""

ACCEPTS_PER_CHECKPOINT = 64

NO_DESCRIPTOR_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_DESCRIPTOR_PAUSE_S = 0.1
"""With no descriptor left, accept fails at once and for ever: a pause keeps the CPU for the clients there are."""

LINGERING_REFUSALS = 256
"""Refused clients waited for at the same time; in a flood the others are closed at once.

With TLS this also bounds the handshakes made only to say no."""

REFUSAL_DEADLINE_S = 1.0


def bind(address: Address, key: str, *, reuse_port: bool = False) -> socket.socket:
    """Listen on an address; `key` is the setting it came from. Raises ListenError, in one line for a person.

    With `reuse_port`, other processes of the same user that ask for the same may listen there too, and the kernel gives
    each new connection to one of them (socket(7), SO_REUSEPORT).
    """
    listening = _bound(address, key, reuse_port)
    try:
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as failure:
        listening.close()
        raise _listen_error(address, key, failure) from None
    return listening


def reserve(address: Address, key: str) -> socket.socket:
    """Hold an address for processes that will `bind` it with `reuse_port`, without listening there.

    Raises ListenError also where somebody listens who would share it: another node with workers. To see that, the
    address is first taken for this process alone; between that and the sharing there is a moment in which another
    program could get it, and a ListenError tells of that too.
    """
    alone = _bound(address, key, reuse_port=False)
    taken = Address(address.host, address_of(alone).port)
    alone.close()
    return _bound(taken, key, reuse_port=True)


def _bound(address: Address, key: str, reuse_port: bool) -> socket.socket:
    try:
        family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as failure:
        raise _listen_error(address, key, failure) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_QUEUE_BYTES)  # those accepted inherit it
        bound.bind(target)
    except OSError as failure:
        bound.close()
        raise _listen_error(address, key, failure) from None
    return bound


def address_of(listening: socket.socket) -> Address:
    """Tell where a socket really listens: the port the kernel chose for port 0."""
    host, port = listening.getsockname()[:2]
    return Address(host, port)


class ClientListener:
    """Accepts clients on one address and serves each in a task of its own.

    `serve` gets each accepted stream, which is counted until it is closed. `refusal` is sent to a client over the
    connection limit, then it is closed; where clients speak TLS, by `tls`, and behind the PROXY headers of `proxies`. A
    listener serves until cancelled; `stop_accepting` ends only the accepting. With `reuse_port` it shares its address
    with the node's other workers.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        admission: Admission,
        serve: Callable[[SocketStream], Awaitable[None]],
        refusal: bytes,
        events: Events,
        tls: ssl.SSLContext | None = None,
        proxies: Collection[Network] = (),
        reuse_port: bool = False,
    ) -> None:
        self.name = name
        self.address = address
        self._reuse_port = reuse_port
        self._admission = admission
        self._serve = serve
        self._refusal = refusal
        self._events = events
        self._tls = tls
        self._proxies = proxies
        self._accepting: trio.CancelScope | None = None
        self._refusing = 0
        # What thousands of connections hold is made once: Trio would write down the name of each task anew.
        self._release = admission.release
        self._local = str(address)
        self._task_name = f"{name} connection"

    @property
    def accepts(self) -> bool:
        """Whether new clients are let in."""
        return self._accepting is not None

    def stop_accepting(self) -> None:
        """Close the listening socket; those connected stay."""
        if self._accepting is not None:
            self._accepting.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises ListenError when the address cannot be listened on."""
        listening = bind(self.address, f"listen.{self.name}", reuse_port=self._reuse_port)
        self.address = address_of(listening)  # a restart takes the same port again
        self._local = str(self.address)
        async with trio.open_nursery() as connections:
            with listening, trio.CancelScope() as accepting:
                self._accepting = accepting
                task_status.started()
                try:
                    await self._accept_until_cancelled(listening, connections)
                finally:
                    self._accepting = None
            await trio.sleep_forever()

    async def _accept_until_cancelled(self, listening: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(ACCEPTS_PER_CHECKPOINT):
                try:
                    accepted, peer = listening.accept()
                except BlockingIOError:
                    break
                except OSError as failure:
                    if failure.errno not in NO_DESCRIPTOR_ERRORS:
                        continue  # this one client vanished between its arrival and now
                    self._events.log("warning", "no_descriptor_left", listener=self.name, error=failure.strerror)
                    await trio.sleep(NO_DESCRIPTOR_PAUSE_S)
                    break
                self._welcome(accepted, peer, connections)

    def _welcome(self, accepted: socket.socket, peer: tuple[Any, ...], connections: trio.Nursery) -> None:
        stream = SocketStream(accepted, peer=str(Address(*peer[:2])), local=self._local)
        if self._admission.admit():
            stream.on_closed = self._release
            connections.start_soon(self._serve, stream, name=self._task_name)
            return
        self._events.count("refusals", reason="connection_limit")
        if self._tls is None:
            with contextlib.suppress(StreamBroken):
                stream.send_now(self._refusal)
        if self._refusing < LINGERING_REFUSALS:
            self._refusing += 1
            connections.start_soon(self._refuse, stream)
        else:
            stream.close()

    async def _refuse(self, stream: SocketStream) -> None:
        """Let a refused client read why before its connection is gone. Like a connection it has a barrier."""
        try:
            with trio.move_on_after(REFUSAL_DEADLINE_S), contextlib.suppress(StreamBroken):
                await self._say_refusal(stream)
        except Exception:
            self._events.count("barrier_hits", place="refusal")
            self._events.log("error", "refusal_failed", listener=self.name, traceback=traceback.format_exc())
        finally:
            stream.close()
            self._refusing -= 1

    async def _say_refusal(self, stream: SocketStream) -> None:
        if self._tls is None:  # sent as it was accepted
            await stream.finish(REFUSAL_DEADLINE_S)
            return
        encrypted = TlsStream(stream, self._tls)
        await introduce(encrypted, self._proxies, self._events)
        encrypted.send_now(self._refusal)
        await encrypted.finish(REFUSAL_DEADLINE_S)


def _listen_error(address: Address, key: str, failure: OSError) -> ListenError:
    problem = failure.strerror or str(failure)
    hint = ""
    if failure.errno == errno.EADDRINUSE:
        hint = ": another program has the port; stop it or choose another"
    return ListenError(f"cannot listen on {address} ({key}): {problem}{hint}")
