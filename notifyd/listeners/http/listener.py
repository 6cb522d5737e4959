"""The HTTP listener: accepts like the others, and gives every connection a barrier of its own.

Source: spec/http.md, "The listener".
"""

import traceback
from dataclasses import replace
from functools import partial
from typing import cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from starlette.types import ASGIApp

from notifyd.auth.api_keys import ApiKeys
from notifyd.events import Events
from notifyd.listeners.accept import ClientListener
from notifyd.listeners.http.app import build_app
from notifyd.listeners.http.backend import Backend
from notifyd.listeners.http.connection import HttpConnection, HttpLimits, Server, ServerConfig
from notifyd.listeners.http.guard import AccessRules
from notifyd.policy.admission import Admission
from notifyd.settings import Address, Network
from notifyd.transport.request_head import response
from notifyd.transport.stream import SocketStream

TOO_MANY_CONNECTIONS = response(
    503, "unavailable", "too many HTTP connections; try again soon", (("Retry-After", "1"),)
)
"""What a client over the limit of HTTP connections gets before its connection is closed."""


class HttpListener:
    """A service that answers HTTP on one address.

    `websocket_url` is where the page finds the WebSocket listener, None where that is off. HTTP connections have a
    limit of their own (`limits`): they are none of the clients that `[limits] connections` counts.

    With `reuse_port` it shares its address with the other workers of the node: each request is answered by one of them,
    for itself alone, `/metrics` and the lists of connections too.
    """

    def __init__(
        self,
        address: Address,
        backend: Backend,
        api_keys: ApiKeys,
        events: Events,
        *,
        payload_limit_bytes: int,
        websocket_url: str | None = None,
        trusted_proxies: tuple[Network, ...] = (),
        limits: HttpLimits | None = None,
        reuse_port: bool = False,
    ) -> None:
        limits = limits or HttpLimits()
        self._access = AccessRules(api_keys, address.is_loopback, trusted_proxies)
        self._compose = partial(build_app, backend, access=self._access, websocket_url=websocket_url, events=events)
        app = _wrap(self._compose(payload_limit_bytes=payload_limit_bytes))
        self._server = Server(app, ServerConfig(events), WorkerContext(None), limits)
        self._events = events
        self._admission = Admission(limits.connections, limits.connections)
        self._listener = ClientListener(
            "http",
            address,
            admission=self._admission,
            serve=self._serve,
            refusal=TOO_MANY_CONNECTIONS,
            events=events,
            reuse_port=reuse_port,
        )

    @property
    def address(self) -> Address:
        """Where it listens: with the real port once `run` has started."""
        return self._listener.address

    @property
    def accepts(self) -> bool:
        """Whether it listens now."""
        return self._listener.accepts

    @property
    def connection_count(self) -> int:
        """How many HTTP connections are open."""
        return self._admission.count

    def reload(self, api_keys: ApiKeys, payload_limit_bytes: int) -> None:
        """Let these keys hold from the next request on, and this limit from the next connection on."""
        self._access.api_keys = api_keys
        app = _wrap(self._compose(payload_limit_bytes=payload_limit_bytes))
        self._server = replace(self._server, app=app)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then refuse new connections at once and let running requests end for `grace_s`.

        Raises ListenError when the address cannot be had.
        """
        await self._listener.run(task_status=task_status)

    async def _serve(self, stream: SocketStream) -> None:
        """Serve one connection behind its barrier: whatever fails in it ends it alone."""
        try:
            await HttpConnection(stream, self._server).serve()
        except* Exception as group:
            self._events.count("barrier_hits", place="http")
            text = "".join(traceback.format_exception(group))
            self._events.log("error", "http_connection_failed", traceback=text)


def _wrap(app: ASGIApp) -> ASGIWrapper:
    """Hand an application to Hypercorn, which types ASGI in another way than Starlette: no checker takes it for one."""
    return ASGIWrapper(cast("ASGIFramework", app))
