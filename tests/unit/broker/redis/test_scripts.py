import hashlib
from pathlib import Path

import pytest

from notifyd.broker.redis.scripts import Script


def test_a_script_is_its_file_behind_its_preludes(tmp_path: Path) -> None:
    (tmp_path / "time.lua").write_text("local function now() end")
    (tmp_path / "topic.lua").write_text("local function touch() end")
    (tmp_path / "read.lua").write_text("return 'ä'")
    script = Script("read", preludes=("time", "topic"), folder=tmp_path)
    assert script.text == "local function now() end\nlocal function touch() end\nreturn 'ä'"
    assert script.sha == hashlib.sha1(script.text.encode()).hexdigest()
    assert Script("read", folder=tmp_path).text == "return 'ä'"
    assert repr(script) == f"Script('read', sha='{script.sha}')"


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.lua"):
        Script("nothing", folder=tmp_path)
