"""One browser for all tests here that look at a page."""

from collections.abc import Iterator

import pytest

from tests.chromium import EXECUTABLE, running_chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[str]:
    """Where a running Chromium's DevTools listen; each test opens a tab of its own."""
    if EXECUTABLE is None:
        pytest.skip("needs chromium")
    with running_chromium() as url:
        yield url
