"""Fixtures with real Redis servers, for all tests: started when a test first asks, shared by those that may share."""

import itertools
from collections.abc import Iterator

import pytest

from tests.kit.redis_process import RedisServer
from tests.kit.redis_servers import Cluster, cluster, standalone

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests that leave it running and as it was configured; others have their own `standalone`."""
    with standalone() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The shared server's URL, all its data gone."""
    redis_server.cli("FLUSHALL")
    redis_server.cli("SCRIPT", "FLUSH")
    return redis_server.url


@pytest.fixture
def redis_prefix() -> str:
    """A `broker.prefix` that no other test has."""
    return f"test{next(_numbers)}"


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """Three masters for all tests that leave them running and their slots where they are."""
    with cluster() as running:
        yield running


@pytest.fixture
def redis_cluster(shared_cluster: Cluster) -> Cluster:
    """The shared cluster, all its data gone."""
    for master in shared_cluster.masters:
        master.cli("FLUSHALL")
        master.cli("SCRIPT", "FLUSH")
    return shared_cluster
