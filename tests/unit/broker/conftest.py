"""Opens the broker under test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import Cluster, standalone
from tests.unit.broker.conformance import KINDS, OTHER_VERSIONS, URLS, Trial, open_trial


@pytest.fixture(scope="session", autouse=True)
def broker_urls(redis_server: RedisServer, shared_cluster: Cluster) -> Iterator[None]:
    """Start the servers that brokers are tried with."""
    URLS.update({"redis": redis_server.url, "redis+cluster": shared_cluster.url})
    with ExitStack() as stack:
        for kind, version in OTHER_VERSIONS.items():
            URLS[kind] = stack.enter_context(standalone(version=version)).url
        yield


@pytest.fixture(params=KINDS)
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Which broker a conformance test runs against."""
    kind: str = request.param
    return kind


@pytest.fixture
async def trial(broker_kind: str) -> AsyncIterator[Trial]:
    """A fresh broker of this kind."""
    async with open_trial(broker_kind) as trial:
        yield trial
