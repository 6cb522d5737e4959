"""What the configuration centre may lay over a node's own configuration, and what comes of it."""

import os
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import ConfigurationError
from notifyd.settings import FIXED_SECTIONS, ConnectionLimit, Layers, Rate, Secret, Settings, load_layers
from notifyd.settings.overlay import (
    MAX_DEPTH,
    NeedsRestart,
    check_overlay,
    live_keys,
    live_sections,
    merge_patch,
    patched,
)

SECRET = "hunter2, and as long as it has to be for HS512, which is 64 bytes, and some more"


def layers_of(path: Path, text: str = "") -> Layers:
    """Write a file and read it."""
    path.write_text(text, encoding="utf-8")
    return load_layers(path, {}, {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notifyd.toml"


# --- RFC 7396, Appendix A ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(original: Any, patch: Any, result: Any) -> None:
    assert merge_patch(original, patch) == result


def test_a_merge_changes_neither_of_the_two() -> None:
    original, patch = {"a": {"b": 1}}, {"a": {"c": 2, "b": None}}
    merged = merge_patch(original, patch)
    merged["a"]["d"] = 3
    assert (original, patch) == ({"a": {"b": 1}}, {"a": {"c": 2, "b": None}})


def test_tables_that_nothing_is_left_in_go() -> None:
    overlay = {"limits": {"payload": 1, "messages": {"rate": 1}}, "topics": []}
    assert patched(overlay, {"limits": {"messages": {"rate": None}}}) == {"limits": {"payload": 1}, "topics": []}
    assert patched(overlay, {"limits": {"payload": None, "messages": None}}) == {"topics": []}


# --- what may stand in it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", [{}, {"limits": {}}, {"auth": {"keys": [{"algorithm": "HS512", "secret": None}]}}])
def test_what_may_stand_in_an_overlay(overlay: Any) -> None:
    check_overlay(overlay)


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        (None, "expected a table of settings"),
        ([], "expected a table of settings"),
        ("limits", "expected a table of settings"),
        ({"limit": {}}, "limit: unknown key; the nearest known one is limits"),
        ({"limits": {"payloads": 1}}, "limits.payloads: unknown key; the nearest known one is limits.payload"),
        ({"topics": [{"match": "a", "histori": 1}]}, "topics[0].histori: unknown key"),
        ({"auth": {"issuer": {"file": "/etc/passwd"}}}, "auth.issuer: only a secret can come from a file here"),
        ({"auth": {"keys": [{"public_key": {"file": "a.pem"}}]}}, "auth.keys[0].public_key: only a secret can come"),
        ({"limits": {"file": "x"}}, "limits.file: unknown key"),
    ],
)
def test_what_may_not(overlay: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_overlay(overlay)
    assert f"configuration centre: {words}" in str(refused.value)
    assert not isinstance(refused.value, NeedsRestart)


@pytest.mark.parametrize(
    ("section", "value", "key"),
    [
        *((section, value, section) for section in FIXED_SECTIONS for value in (1, None, [], {})),
        ("listen", {"http": "127.0.0.1:1"}, "listen.http"),
        ("node", {"workers": None}, "node.workers"),
    ],
)
def test_what_needs_a_restart_is_named(section: str, value: Any, key: str) -> None:
    with pytest.raises(NeedsRestart) as refused:
        check_overlay({"limits": {"payload": 1}, section: value})
    assert (refused.value.key, "needs a restart" in refused.value.reason) == (key, True)


@pytest.mark.parametrize(
    "auth",
    [
        {"api_keys": [SECRET]},
        {"api_keys": SECRET},
        {"api_keys": [{"file": SECRET, "more": 1}]},
        {"api_keys": [{"file": [SECRET]}]},
        {"api_keys": [[SECRET]]},
        {"keys": [{"algorithm": "HS512", "secret": SECRET}]},
        {"keys": [{"algorithm": "HS512", "secret": {"file": {"file": SECRET}}}]},
        {"keys": [{"algorithm": "HS512", "secret": [SECRET]}]},
        {"keys": SECRET},
        {"keys": [SECRET]},
    ],
)
def test_a_secret_is_neither_taken_nor_shown(auth: Any, path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        layers_of(path).build({"auth": auth})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("is_list", [False, True])
def test_what_is_nested_without_end_is_refused(levels: int, is_list: bool) -> None:
    value: Any = "1"
    for _ in range(levels):
        value = [value] if is_list else {"limits": value}
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        check_overlay({"limits": value})


def test_the_keys_that_can_change_live_are_those_of_the_sections_that_can() -> None:
    assert {key.partition(".")[0] for key in live_keys()} == set(live_sections())
    assert set(live_sections()).isdisjoint(FIXED_SECTIONS)
    assert {"limits.messages", "topics", "log.level", "auth.api_keys"} <= set(live_keys())


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_an_overlay_goes_over_the_other_layers(path: Path) -> None:
    path.write_text('[limits]\npayload = "1KiB"\nmessages = { rate = 1, burst = 2 }\n[[topics]]\nmatch = "a:*"\n')
    layers = load_layers(path, {"NOTIFYD_LIMITS__QUEUE": "8KiB"}, {"log.level": "debug"})
    overlay = {
        "limits": {"queue": "16KiB", "messages": {"burst": 9}},
        "topics": [{"match": "b:*"}],
        "log": {"level": "error"},
    }
    settings = layers.build(overlay)
    assert (settings.limits.payload_bytes, settings.limits.queue_bytes) == (1024, 16 * 1024)
    assert settings.limits.messages == Rate(rate=1, burst=9)
    assert [policy.match.text for policy in settings.topics] == ["b:*"]
    assert settings.log.level == "error"
    assert layers.build().limits.queue_bytes == 8 * 1024, "what lies below is as it was"
    assert overlay["limits"]["queue"] == "16KiB"


def test_what_follows_from_another_key_follows_from_the_overlay(path: Path) -> None:
    overlay = {"limits": {"connections": {"limit": 100}}}
    wanted = ConnectionLimit(limit=100, resume=90)
    assert layers_of(path).build(overlay).limits.connections == wanted
    assert Layers.of(Settings()).build(overlay).limits.connections == wanted


def test_one_number_of_a_rate_can_be_changed_alone(path: Path) -> None:
    overlay = {"limits": {"messages": {"rate": 7}, "connects": {"burst": 3}}}
    limits = layers_of(path, "[limits]\nmessages = { rate = 1, burst = 2 }\n").build(overlay).limits
    assert (limits.messages, limits.connects) == (Rate(rate=7, burst=2), Rate(rate=500, burst=3))
    with pytest.raises(ConfigurationError, match=r"limits.user_messages.burst: is required here and missing"):
        layers_of(path).build({"limits": {"user_messages": {"rate": 7}}})


@pytest.mark.parametrize(
    ("overlay", "source", "words"),
    [
        ({"heartbeat": {"minimum": "40s"}}, "notifyd.toml", "heartbeat.interval: 20s is not between heartbeat.minimum"),
        ({"heartbeat": {"interval": "2h"}}, "configuration centre", "heartbeat.interval: 2h is not between"),
        ({"limits": {"payload": "lots"}}, "configuration centre", 'limits.payload: expected a size such as "64KiB"'),
        ({"topics": [{}]}, "configuration centre", "topics[0].match: is required here and missing"),
    ],
)
def test_what_does_not_go_together_names_the_source_and_the_key(
    overlay: Any, source: str, words: str, path: Path
) -> None:
    layers = layers_of(path, '[heartbeat]\ninterval = "20s"\n')
    with pytest.raises(ConfigurationError) as refused:
        layers.build(overlay)
    assert source in refused.value.source
    assert words in str(refused.value)


def test_secrets_come_from_files_beside_the_configuration(path: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    overlay = {
        "auth": {
            "api_keys": [{"file": "key"}, {"file": str(tmp_path / "key")}],
            "keys": [{"algorithm": "HS512", "secret": {"file": "key"}}],
        }
    }
    auth = layers_of(path).build(overlay).auth
    assert auth.api_keys == (Secret(SECRET), Secret(SECRET))
    assert auth.keys[0].secret == Secret(SECRET)


def test_a_file_that_cannot_be_read_is_named(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    layers = layers_of(path)
    for name, words in {
        "nothing": "No such file",
        "pipe": "not a regular file",
        "/dev/zero": "not a regular file",
        ".": "not a regular file",
        "x" * 5000: "File name too long",
        "\0": "cannot read",
    }.items():
        with pytest.raises(ConfigurationError) as refused:
            layers.build({"auth": {"api_keys": [{"file": name}]}})
        assert str(refused.value).startswith("configuration centre: auth.api_keys[0]: cannot read ")
        assert words in str(refused.value)
