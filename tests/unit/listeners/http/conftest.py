"""A listener on a free port of this machine, with a stand-in for the node behind it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.worker_context import WorkerContext
from starlette.applications import Starlette
from starlette.routing import Route

from notifyd.auth.api_keys import ApiKeys
from notifyd.listeners.http.app import build_app
from notifyd.listeners.http.connection import HttpLimits, Server, ServerConfig
from notifyd.listeners.http.guard import AccessRules
from notifyd.listeners.http.listener import HttpListener
from notifyd.settings import Address
from tests.http_client import HttpClient
from tests.recorded_events import RecordedEvents
from tests.unit.listeners.http.node_stand_in import NodeStandIn

PAYLOAD_LIMIT_BYTES = 1024

Start = Callable[..., Awaitable[HttpClient]]


@pytest.fixture
def backend() -> NodeStandIn:
    return NodeStandIn()


@pytest.fixture
def routes(backend: NodeStandIn, events: RecordedEvents) -> list[Route]:
    """All that a listener serves."""
    access = AccessRules(ApiKeys(()), loopback=True)
    app = build_app(backend, access=access, payload_limit_bytes=1024, websocket_url=None, events=events)
    assert isinstance(app, Starlette)
    return [route for route in app.routes if isinstance(route, Route)]


@pytest.fixture
def start(backend: NodeStandIn, events: RecordedEvents, nursery: trio.Nursery) -> Start:
    """Start a listener with these settings and return a client for it; it is stopped after the test."""

    async def start(
        *, keys: tuple[str, ...] = (), key: str | None = None, host: str = "127.0.0.1", **options: Any
    ) -> HttpClient:
        options.setdefault("payload_limit_bytes", PAYLOAD_LIMIT_BYTES)
        listener = HttpListener(Address(host, 0), backend, ApiKeys(keys), events, **options)
        await nursery.start(run, listener)
        return HttpClient(listener.address.port, "127.0.0.1", key)

    return start


@pytest.fixture
async def client(start: Start) -> HttpClient:
    return await start()


async def run(listener: HttpListener, task_status: trio.TaskStatus[None]) -> None:
    await listener.run(task_status=task_status)


def new_server(backend: NodeStandIn, events: RecordedEvents, limits: HttpLimits) -> Server:
    """Compose what a connection needs, for connections without a listener."""
    app = build_app(
        backend,
        access=AccessRules(ApiKeys(()), loopback=True),
        payload_limit_bytes=PAYLOAD_LIMIT_BYTES,
        websocket_url=None,
        events=events,
    )
    return Server(ASGIWrapper(app), ServerConfig(events), WorkerContext(None), limits)
