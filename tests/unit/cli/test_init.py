import os
import stat
from pathlib import Path

import pytest

from notifyd.settings import load
from notifyd.settings.checks import find_weaknesses
from tests.unit.cli.command_line import Run


def test_what_it_writes_is_private_safe_and_passes_check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("init")
    assert (code, err) == (0, "")
    assert "notifyd check" in out
    path = Path("notifyd.toml")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load(path, {}, {})
    assert list(find_weaknesses(settings)) == []
    assert (settings.auth.anonymous, settings.auth.keys[0].algorithm) == (False, "HS512")
    assert settings.auth.keys[0].kid
    for secret in (settings.auth.keys[0].secret, settings.auth.api_keys[0]):
        assert secret is not None
        assert secret.reveal() not in out
    for name in ("WEBSOCKET", "DEVICE", "HTTP"):  # the usual ports may be taken on the machine that tests
        monkeypatch.setenv(f"NOTIFYD_LISTEN__{name}", "127.0.0.1:0")
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert "warning" not in out
    assert out.endswith("notifyd.toml: ok\n")


def test_no_two_are_alike(run: Run) -> None:
    run("init", "--config", "a.toml")
    run("init", "--config", "b.toml")
    first, second = load(Path("a.toml"), {}, {}).auth, load(Path("b.toml"), {}, {}).auth
    assert first.keys[0].secret != second.keys[0].secret
    assert first.api_keys != second.api_keys


def test_another_file_is_named_in_what_to_do_next(run: Run) -> None:
    assert "`notifyd check --config other.toml`" in run("init", "--config", "other.toml").out


def test_it_overwrites_nothing(run: Run) -> None:
    Path("notifyd.toml").write_text("mine")
    code, out, err = run("init")
    assert (code, out) == (1, "")
    assert err.startswith("notifyd.toml: is there already and is left as it is")
    assert Path("notifyd.toml").read_text() == "mine"
    Path("dangling").symlink_to("nowhere")
    assert run("init", "--config", "dangling").code == 1
    assert not Path("nowhere").exists()


def test_it_says_where_it_cannot_write(run: Run) -> None:
    assert run("init", "--config", "no/such/folder.toml").err == (
        "no/such/folder.toml: cannot be written: No such file or directory\n"
    )


def test_the_mode_does_not_depend_on_the_users_mask(run: Run) -> None:
    before = os.umask(0)
    try:
        run("init")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("notifyd.toml").stat().st_mode) == 0o600
