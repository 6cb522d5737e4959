"""The file that `notifyd init` writes: what it holds, and that what it says about defaults is true."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from notifyd.settings import Settings, load
from notifyd.settings.names import known_keys
from notifyd.settings.template import write_template

TEXT = write_template(secret="s" * 64, kid="2026", api_key="a" * 32)


def uncommented() -> str:
    """Every optional setting switched on: a "#" with no space after it."""
    return re.sub(r"^#(?=\S)", "", TEXT, flags=re.MULTILINE)


def keys_of(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item, prefix)}
    if not isinstance(value, dict):
        return set()
    own = {f"{prefix}{name}" for name in value}
    return own.union(*(keys_of(item, f"{prefix}{name}.") for name, item in value.items()))


def load_text(text: str, folder: Path) -> Settings:
    (folder / "login.pem").write_text("-----BEGIN PUBLIC KEY-----")
    (folder / "jwks.json").write_text(json.dumps({"keys": [{"kty": "EC", "alg": "ES256", "kid": "set"}]}))
    path = folder / "notifyd.toml"
    path.write_text(text)
    return load(path, {}, {})


def test_every_key_there_is_stands_in_it() -> None:
    assert set(known_keys()) - keys_of(tomllib.loads(uncommented())) == set()


def test_no_other_key_stands_in_it() -> None:
    files = {"auth.keys.public_key.file", "auth.keys.jwks.file"}
    assert keys_of(tomllib.loads(uncommented())) - set(known_keys()) == files


@pytest.mark.parametrize("text", [TEXT, uncommented()], ids=["as written", "with everything switched on"])
def test_it_loads(text: str, tmp_path: Path) -> None:
    settings = load_text(text, tmp_path)
    assert settings.auth.keys[0].kid == "2026"
    assert not settings.auth.anonymous


def test_what_it_shows_is_the_default(tmp_path: Path) -> None:
    settings, default = load_text(TEXT, tmp_path), Settings()
    for section in ("listen", "broker", "heartbeat", "limits", "sessions", "topics", "log", "tracing", "debug"):
        assert getattr(settings, section) == getattr(default, section), section
    assert msgspec.structs.replace(settings.node, name="") == msgspec.structs.replace(default.node, name="")
    assert msgspec.structs.replace(settings.auth, keys=(), api_keys=()) == default.auth


def test_the_topic_it_shows_has_the_defaults(tmp_path: Path) -> None:
    (policy,) = load_text(uncommented(), tmp_path).topics
    assert msgspec.structs.replace(policy, match=Settings().policy_for("x").match) == Settings().policy_for("x")


def test_every_line_is_narrow_enough_to_read() -> None:
    assert max(map(len, TEXT.replace("s" * 64, "").splitlines())) <= 120
