"""The server that a client's tests script, once for each transport and encoding."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.unit.client.scripted_server import KINDS, ScriptedServer, open_scripted_server


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, autojump_clock: MockClock) -> AsyncIterator[ScriptedServer]:
    async with open_scripted_server(request.param) as server:
        yield server


@pytest.fixture
async def device_server(autojump_clock: MockClock) -> AsyncIterator[ScriptedServer]:
    """For what does not depend on the transport."""
    async with open_scripted_server("device") as server:
        yield server
