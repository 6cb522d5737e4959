import os
from pathlib import Path

import pytest

from tests.unit.cli.command_line import Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs commands in an empty directory, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NOTIFYD_")]:
        monkeypatch.delenv(name)
    return runner(capsys, monkeypatch)
