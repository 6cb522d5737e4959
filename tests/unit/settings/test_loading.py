import contextlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifyd.errors import ConfigurationError
from notifyd.settings import Access, Address, Overflow, Rate, Secret, Settings, Url, load
from notifyd.settings.layers import MAX_SECRET_FILE_BYTES
from notifyd.settings.loading import is_setting
from notifyd.settings.names import known_keys, nearest_key
from protocol.topics import Pattern

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "notifyd.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | None, environ: Mapping[str, str] | None = None, **overrides: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as error:
        load(path, environ or {}, overrides)
    assert "\n" not in str(error.value)
    return error.value


FULL = """
[node]
name = "n1"
drain = "3s"
workers = 1
[listen]
websocket = "0.0.0.0:7500"
device = ""
http = "[::1]:0"
tls = { certificate = "server.pem", key = "/etc/key.pem", client_ca = { file = "ca.pem" } }
[broker]
url = "memory://"
prefix = "p"
memory = "1GiB"
[auth]
anonymous = true
origins = ["https://app.example.com", "*"]
keys = [{ algorithm = "HS512", secret = "s", kid = "2026" }]
issuer = "i"
audience = "a"
leeway = "1s"
api_keys = ["k"]
[heartbeat]
interval = "20s"
misses = 3
floor = "5s"
minimum = "500ms"
maximum = "2h"
[limits]
payload = 1000
connections = { limit = 10, resume = 5 }
handshake = "1s"
queue = "8KiB"
messages = { rate = 1, burst = 2 }
user_messages = { rate = 0.5, burst = 4 }
[sessions]
ttl = "1m"
[[topics]]
match = "orders:*"
history = 5
ttl = "2s"
presence = false
joins = true
overflow = "drop_oldest"
publish = "service"
subscribe = "anyone"
[debug]
echo = false
"""


def test_every_key_is_read(write: Write, tmp_path: Path) -> None:
    settings = load(write(FULL), {}, {})
    assert (settings.node.name, settings.node.drain_s, settings.node.workers) == ("n1", 3.0, 1)
    assert settings.listen.websocket == Address("0.0.0.0", 7500)
    assert settings.listen.device is None
    assert settings.listen.http == Address("::1", 0)
    tls = settings.listen.tls
    assert tls is not None
    assert (tls.certificate, tls.key, tls.client_ca) == (
        tmp_path / "server.pem",
        Path("/etc/key.pem"),
        tmp_path / "ca.pem",
    )
    assert (settings.broker.url, settings.broker.prefix, settings.broker.memory_bytes) == (Url("memory://"), "p", 2**30)
    auth = settings.auth
    assert (auth.anonymous, auth.origins) == (True, ("https://app.example.com", "*"))
    assert (auth.keys[0].algorithm, auth.keys[0].secret, auth.keys[0].kid) == ("HS512", Secret("s"), "2026")
    assert (auth.issuer, auth.audience, auth.leeway_s, auth.api_keys) == ("i", "a", 1.0, (Secret("k"),))
    beat = settings.heartbeat
    assert (beat.interval_s, beat.misses, beat.floor_s, beat.minimum_s, beat.maximum_s) == (20.0, 3, 5.0, 0.5, 7200.0)
    limits = settings.limits
    assert (limits.payload_bytes, limits.handshake_s, limits.queue_bytes) == (1000, 1.0, 8192)
    assert (limits.connections.limit, limits.connections.resume) == (10, 5)
    assert (limits.messages, limits.user_messages) == (Rate(rate=1, burst=2), Rate(rate=0.5, burst=4))
    assert settings.sessions.ttl_s == 60.0
    topic = settings.topics[0]
    assert (topic.match, topic.history, topic.ttl_s, topic.presence, topic.joins) == (
        Pattern("orders:*"),
        5,
        2.0,
        False,
        True,
    )
    assert (topic.overflow, topic.publish, topic.subscribe) == (Overflow.DROP_OLDEST, Access.SERVICE, Access.ANYONE)
    assert settings.debug.echo is False
    for number in (beat.interval_s, limits.payload_bytes, settings.broker.memory_bytes):
        assert type(number) in (int, float)


def test_the_defaults_are_the_documented_ones(write: Write) -> None:
    settings = load(write(""), {}, {})
    assert settings.listen == Settings().listen
    assert list(map(str, (settings.listen.websocket, settings.listen.device, settings.listen.http))) == [
        "127.0.0.1:7500",
        "127.0.0.1:7501",
        "127.0.0.1:7502",
    ]
    assert settings.limits.connections.resume == 9000
    assert load(write("[limits]\nconnections = {limit = 1}"), {}, {}).limits.connections.resume == 1
    assert settings.auth.origins is None
    assert settings.node.name == load(write(""), {}, {}).node.name


def test_file_below_environment_below_flags(write: Write) -> None:
    path = write('[node]\nname = "file"\ndrain = "1s"\nworkers = 1\n[limits]\nmessages = { rate = 1, burst = 2 }')
    environ = {"NOTIFYD_NODE__NAME": "environment", "NOTIFYD_NODE__DRAIN": "2s", "NOTIFYD_LIMITS__MESSAGES__RATE": "7"}
    settings = load(path, environ, {"node.name": "flag", "node.workers": None})
    assert (settings.node.name, settings.node.drain_s) == ("flag", 2.0)
    assert settings.limits.messages == Rate(rate=7, burst=2)


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("NOTIFYD_NODE__NAME", "7", "node.name", "7"),
        ("NOTIFYD_NODE__NAME", "true", "node.name", "true"),
        ("NOTIFYD_NODE__NAME", '"quoted"', "node.name", "quoted"),
        ("NOTIFYD_NODE__NAME", "2026-01-01", "node.name", "2026-01-01"),
        ("NOTIFYD_NODE__NAME", "a = 1", "node.name", "a = 1"),
        ("NOTIFYD_NODE__NAME", "1\nx = 2".replace("\n", " "), "node.name", "1 x = 2"),
        ("NOTIFYD_NODE__DRAIN", "5m", "node.drain_s", 300.0),
        ("NOTIFYD_LIMITS__PAYLOAD", "64KiB", "limits.payload_bytes", 65536),
        ("NOTIFYD_LIMITS__PAYLOAD", "1_000", "limits.payload_bytes", 1000),
        ("NOTIFYD_LISTEN__HTTP", "", "listen.http", None),
        ("NOTIFYD_LISTEN__HTTP", "[::1]:0", "listen.http", Address("::1", 0)),
        ("NOTIFYD_AUTH__ANONYMOUS", "true", "auth.anonymous", True),
        ("NOTIFYD_AUTH__ISSUER", "12", "auth.issuer", "12"),
        ("NOTIFYD_AUTH__ORIGINS", '["https://a"]', "auth.origins", ("https://a",)),
        ("NOTIFYD_AUTH__API_KEYS", '["k"]', "auth.api_keys", (Secret("k"),)),
        ("NOTIFYD_DEBUG", "{echo = true}", "debug.echo", True),
        ("NOTIFYD_TOPICS", "[]", "topics", ()),
        ("NOTIFYD_PORT", "tcp://10.0.0.1:7500", "topics", ()),
        ("NOTIFYD_SERVICE_HOST", "10.0.0.1", "topics", ()),
        ("notifyd_node__name", "x", "topics", ()),
        ("OTHER_NODE__NAME", "x", "topics", ()),
    ],
)
def test_variables(name: str, text: str, key: str, value: object) -> None:
    found: Any = load(None, {name: text}, {})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_variables_that_hold_more_than_one_value_are_text() -> None:
    assert load(None, {"NOTIFYD_BROKER__PREFIX": "1\na = 2"}, {}).broker.prefix == "1\na = 2"


def test_topics_of_the_environment() -> None:
    topics = load(None, {"NOTIFYD_TOPICS": '[{match = "a:*", overflow = "gap"}]'}, {}).topics
    assert (topics[0].match, topics[0].overflow) == (Pattern("a:*"), Overflow.GAP)


def test_which_variables_are_settings() -> None:
    assert is_setting("NOTIFYD_NODE__NAME")
    assert is_setting("NOTIFYD_TOPICS")
    assert is_setting("NOTIFYD_ANY__THING")
    assert not is_setting("NOTIFYD_PORT")
    assert not is_setting("PATH")


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('limits.payload = "sixty"', "limits.payload", 'expected a size such as "64KiB", got "sixty"'),
        ("limits.paylod = 1", "limits.paylod", "unknown key; the nearest known one is limits.payload"),
        ("limitz.payload = 1", "limitz", "unknown key; the nearest known one is limits"),
        ("payload = 1", "payload", "unknown key; the nearest known one is limits.payload"),
        ("limits.interval = 1", "limits.interval", "unknown key; the nearest known one is heartbeat.interval"),
        ("[[topics]]\nmatch = 'a'\nhistry = 1", "topics[0].histry", "nearest known one is topics[0].history"),
        ("auth.keys = [{algoritm = 'HS512'}]", "auth.keys[0].algoritm", "nearest known one is auth.keys[0].algorithm"),
        ("limits.messages.rat = 1", "limits.messages.rat", "nearest known one is limits.messages.rate"),
        ("heartbeat.interval = 5", "heartbeat.interval", 'expected a duration such as "30s", "5m" or "500ms", got 5'),
        ("node.workers = 'two'", "node.workers", 'expected a whole number, got "two"'),
        ("node.workers = 0", "node.workers", "expected a whole number >= 1, got 0"),
        ("node.workers = true", "node.workers", "expected a whole number, got true"),
        ("node = 5", "node", "expected a table, got 5"),
        ("node.name = ''", "node.name", 'expected text of length >= 1, got ""'),
        ("topics = 'x'", "topics", 'expected an array, got "x"'),
        ("topics = [5]", "topics[0]", "expected a table, got 5"),
        ("[[topics]]\nhistory = 1", "topics[0].match", "is required here and missing"),
        ("[[topics]]\nmatch = 'a:**:b'", "topics[0].match", "has '**' before its last part"),
        (
            "[[topics]]\nmatch = 'a'\noverflow = 'x'",
            "topics[0].overflow",
            'expected one of "disconnect", "gap", "drop_oldest", "latest", got "x"',
        ),
        ("[[topics]]\nmatch = 'a'\npublish = 1", "topics[0].publish", "got 1"),
        ("limits.messages = {rate = 1}", "limits.messages.burst", "is required here and missing"),
        ("limits.messages = {rate = nan, burst = 1}", "limits.messages.rate", "expected a number > 0.0, got nan"),
        ("limits.messages = {rate = inf, burst = 1}", "limits.messages.rate", "got inf"),
        ("listen.http = 'x'", "listen.http", "expected an address such as"),
        ("listen.http = 80", "listen.http", "expected an address such as"),
        ("listen.tls = {certificate = 'c'}", "listen.tls.key", "is required here and missing"),
        ("listen.tls = {certificate = 5, key = 'k'}", "listen.tls.certificate", "expected the path of a file, got 5"),
        ("listen.tls = {certificate = '', key = 'k'}", "listen.tls.certificate", "expected the path of a file"),
        (
            "auth.keys = [{algorithm = 'HS1', secret = 's'}]",
            "auth.keys[0].algorithm",
            'expected one of "HS256", "HS384"',
        ),
        ("node.name = 2026-01-01", "node.name", "got a date or time"),
        ("limits.connections.limit = 99999999999999999999", "limits.connections.limit", "expected a whole number <= "),
    ],
)
def test_errors_name_file_key_and_reason(text: str, key: str, reason: str, write: Write) -> None:
    path = write(text)
    error = refusal(path)
    assert (error.source, error.key) == (str(path), key)
    assert reason in error.reason
    assert str(error).startswith(f"{path}: {key}: ")


def test_errors_name_the_source_that_is_wrong(write: Write) -> None:
    path = write('[limits]\npayload = "1KiB"\n[node]\nname = "n"')
    wrong = {"NOTIFYD_LIMITS__PAYLOAD": "sixty"}
    assert str(refusal(path, wrong)) == (
        'NOTIFYD_LIMITS__PAYLOAD: limits.payload: expected a size such as "64KiB", got "sixty"'
    )
    assert refusal(path, wrong, **{"limits.queue": "1KiB"}).source == "NOTIFYD_LIMITS__PAYLOAD"
    assert refusal(path, {}, **{"limits.payload": "x"}).source == "command line"
    assert refusal(path, {"NOTIFYD_NODE__NAM": "x"}).source == "NOTIFYD_NODE__NAM"
    assert refusal(path, {"NOTIFYD_NODE": "5"}).source == "NOTIFYD_NODE"
    assert refusal(path, {"NOTIFYD_NODE__NAME__X": "5"}).source == "NOTIFYD_NODE__NAME__X"
    assert refusal(path, {"NOTIFYD_LIMITS__MESSAGES__RATE": "5"}).source == "NOTIFYD_LIMITS__MESSAGES__RATE"
    assert refusal(path, {"NOTIFYD_NODE__NAME": "\udc80"}).source == "NOTIFYD_NODE__NAME"
    assert refusal(path, {"NOTIFYD___NAME": "x"}).source == "NOTIFYD___NAME"
    assert refusal(None, {}, **{"heartbeat.interval": "0s"}).source == "command line"
    assert refusal(None, {"NOTIFYD_LISTEN__TLS": "{}"}).key == "listen.tls.certificate"
    assert refusal(None, {"NOTIFYD_TOPICS": "{}"}).source == "NOTIFYD_TOPICS"


def test_a_rule_between_settings_names_a_source_that_took_part() -> None:
    assert refusal(None, {"NOTIFYD_HEARTBEAT__MAXIMUM": "2s"}).source == "NOTIFYD_HEARTBEAT__MAXIMUM"
    assert refusal(None, {"NOTIFYD_NODE__NAME": "n"}, **{"heartbeat.maximum": "2s"}).source == "command line"
    off = {f"NOTIFYD_LISTEN__{name}": "" for name in ("HTTP", "DEVICE", "WEBSOCKET")}
    assert refusal(None, off).source in off


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x", "is not TOML"),
        (b"a = 1\na = 2", "is not TOML"),
        (b"\xff", "is not UTF-8 text (byte 0)"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_files_that_are_no_configuration(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "notifyd.toml"
    path.write_bytes(content)
    error = refusal(path)
    assert (error.source, error.key) == (str(path), "")
    assert reason in error.reason


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "`notifyd init` writes one" in refusal(tmp_path / "none.toml").reason
    assert "cannot be read: Is a directory" in refusal(tmp_path).reason


def test_secrets_come_from_files_beside_the_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("from a file\n")
    path = write(
        "auth.keys = [{algorithm = 'HS512', secret = {file = 'secrets/key'}}]\nauth.api_keys = [{file = 'secrets/key'}]"
    )
    auth = load(path, {}, {}).auth
    assert auth.keys[0].secret == Secret("from a file")
    assert auth.api_keys == (Secret("from a file"),)


def test_files_named_in_the_environment_are_beside_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("k")
    monkeypatch.chdir(tmp_path)
    settings = load(None, {"NOTIFYD_AUTH__API_KEYS": "[{file = 'key'}]", "NOTIFYD_AUTH__ISSUER": "{file = 'key'}"}, {})
    assert settings.auth.api_keys == (Secret("k"),)
    assert settings.auth.issuer == "k"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"\xff", "not UTF-8 text"), (b"x" * (MAX_SECRET_FILE_BYTES + 1), "larger than 1 MiB")],
)
def test_secret_files_that_cannot_be_read(content: bytes | None, reason: str, write: Write, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    error = refusal(write("auth.keys = [{algorithm = 'HS512', secret = {file = 's'}}]"))
    assert error.key == "auth.keys[0].secret"
    assert reason in error.reason
    assert str(tmp_path / "s") in error.reason


HIDE_ME = "hide-me-please"


@pytest.mark.parametrize(
    "text",
    [
        f'auth.api_keys = "{HIDE_ME}"',
        f'auth.api_keys = [["{HIDE_ME}"]]',
        f'auth.keys = "{HIDE_ME}"',
        f'auth.keys = ["{HIDE_ME}"]',
        f'auth = "{HIDE_ME}"',
        f'auth.keys = [{{algorithm = "HS512", secret = ["{HIDE_ME}"]}}]',
        f'auth.keys = [{{algorithm = "HS512", secrt = "{HIDE_ME}"}}]',
        f'auth.keys = [{{algorithm = "RS256", secret = "{HIDE_ME}"}}]',
        f'auth.keys = [{{algorithm = "RS256", public_key = "{HIDE_ME}"}}]',
        f'auth.keys = [{{secret = "{HIDE_ME}"}}]',
        f'auth.keys = [{{algorithm = "HS512", secret = "base64:{HIDE_ME}"}}]',
        f'auth.keys = [{{algorithm = "HS512", secret = "-----BEGIN {HIDE_ME}"}}]',
        f'auth.keys = [{{jwks = "{HIDE_ME}"}}]',
        f'broker.url = "redi://:{HIDE_ME}@host"',
        f'broker.url = ":{HIDE_ME}@host"',
        f'broker.url = ["{HIDE_ME}"]',
    ],
)
def test_no_error_shows_a_secret(text: str, write: Write) -> None:
    assert HIDE_ME not in str(refusal(write(text)))


def test_settings_show_no_secret() -> None:
    environ = {
        "NOTIFYD_AUTH__KEYS": f'[{{algorithm = "HS512", secret = "{HIDE_ME}"}}]',
        "NOTIFYD_AUTH__API_KEYS": f'["{HIDE_ME}"]',
    }
    settings = load(None, environ, {})
    assert HIDE_ME not in f"{settings} {settings!r} {settings.auth.keys} {settings.auth.api_keys}"


TOML_VALUES = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.dates(), st.datetimes(), st.times()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@example("auth", {"a\nb": ""})
@given(st.sampled_from(sorted(known_keys())), TOML_VALUES)
def test_any_value_anywhere_is_taken_or_explained(key: str, value: Any) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(load(None, {}, {key: value}), Settings)
        return
    error = refusal(None, {}, **{key: value})
    assert error.source == "command line"
    assert error.key.startswith(key.split(".", maxsplit=1)[0])
    assert error.reason


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_for_a_file_is_taken_or_explained(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assert "is not TOML" in refusal(path).reason


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_there_is_always_a_nearest_key(path: list[str]) -> None:
    assert nearest_key([*path]).replace("[0]", "") in known_keys()
