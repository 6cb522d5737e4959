"""Opens the broker under test."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.broker.conformance import KINDS, Trial, open_trial


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
