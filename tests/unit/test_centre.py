"""The configuration centre of one node: changes, versions, what it refuses, and what a restart would make of it all."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from notifyd.broker.base import VERSIONS_KEPT, ConfigurationVersion
from notifyd.centre import ATTEMPTS, NotNewest, UnknownVersion
from notifyd.errors import BrokerUnavailable, ConfigurationError
from notifyd.settings import (
    FIXED_SECTIONS,
    Address,
    AuthSettings,
    Layers,
    ListenSettings,
    Secret,
    Settings,
    load_layers,
)
from notifyd.settings.overlay import live_keys
from tests.kit.centre_kit import UNIX_S, CentreKit
from tests.kit.memory_node import run_virtual

PAYLOAD = {"limits": {"payload": "1KiB"}}
FILE = '[heartbeat]\ninterval = "20s"\n[limits]\nqueue = "8KiB"\nmessages = { rate = 5, burst = 10 }\n'


@pytest.fixture
def kit(tmp_path: Path) -> CentreKit:
    path = tmp_path / "notifyd.toml"
    path.write_text(FILE)
    return CentreKit(load_layers(path, {}, {}))


def untouched(kit: CentreKit) -> bool:
    """Whether nothing has happened at all."""
    return not kit.taken and kit.centre.applied.version == kit.centre.newest.version == 0


# --- changing ---------------------------------------------------------------------------------------------------------


async def test_a_change_holds_when_it_returns_and_is_remembered(kit: CentreKit) -> None:
    await kit.centre.change(PAYLOAD, author="ada")
    assert kit.settings.limits.payload_bytes == 1024
    version = ConfigurationVersion(1, int(UNIX_S * 1000), "ada", PAYLOAD)
    assert kit.centre.applied == kit.centre.newest == version
    assert await kit.centre.history(10) == [version]
    assert kit.events.logged("configured") == [{"version": 1, "author": "ada"}]


async def test_changes_go_over_each_other_and_null_takes_one_back(kit: CentreKit) -> None:
    await kit.centre.change(PAYLOAD, author="ada")
    await kit.centre.change({"limits": {"queue": "16KiB"}}, author="bob")
    await kit.centre.change({"limits": {"payload": None}}, author="eve")
    limits = kit.settings.limits
    assert (limits.payload_bytes, limits.queue_bytes, limits.messages.rate) == (64 * 1024, 16 * 1024, 5)
    assert [one.author for one in await kit.centre.history(10)] == ["eve", "bob", "ada"]
    assert kit.centre.applied.overlay == {"limits": {"queue": "16KiB"}}


async def test_a_patch_that_changes_nothing_makes_no_version(kit: CentreKit) -> None:
    for patch in ({}, {"limits": {"payload": None}}, {"limits": None}, {"limits": {"connects": {}}}):
        await kit.centre.change(patch, author="ada")
        assert untouched(kit)
    await kit.centre.change(PAYLOAD, author="ada")
    before = await kit.centre.history(10)
    await kit.centre.change(PAYLOAD, author="bob")
    assert await kit.centre.history(10) == before


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"limits": {"payload": "lots"}}, "configuration centre: limits.payload: expected a size"),
        ({"heartbeat": {"minimum": "40s"}}, "notifyd.toml: heartbeat.interval: 20s is not between heartbeat.minimum"),
        ({"listen": {"http": "127.0.0.1:1"}}, "listen.http: needs a restart"),
        ({"auth": {"api_keys": ["hunter2"]}}, "auth.api_keys[0]: a secret is not kept here"),
        (
            {"auth": {"keys": [{"algorithm": "ES256", "public_key": "-----BEGIN PUBLIC KEY-----\nAAAA"}]}},
            "configuration centre: auth.keys[0].public_key: ",
        ),
        ([1], "expected a table of settings"),
    ],
)
async def test_a_bad_change_harms_nothing_and_says_why(patch: Any, words: str, kit: CentreKit) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await kit.centre.change(patch, author="ada")
    assert words in str(refused.value)
    assert untouched(kit)
    assert await kit.centre.history(10) == []


async def test_who_changes_it_cannot_lock_everybody_out() -> None:
    listen = ListenSettings(http=Address("0.0.0.0", 7502))
    kit = CentreKit(Layers.of(Settings(listen=listen, auth=AuthSettings(api_keys=(Secret("k" * 32),)))))
    with pytest.raises(ConfigurationError, match=r"auth.api_keys: is empty: nobody could change anything any more"):
        await kit.centre.change({"auth": {"api_keys": []}}, author="ada")
    assert untouched(kit)


async def test_a_change_for_another_version_than_the_newest_is_refused(kit: CentreKit) -> None:
    await kit.centre.change(PAYLOAD, author="ada", expected=0)
    for expected in (0, 2):
        with pytest.raises(NotNewest) as refused:
            await kit.centre.change({"limits": {"queue": "16KiB"}}, author="bob", expected=expected)
        assert refused.value.newest == 1
    await kit.centre.change({"limits": {"queue": "16KiB"}}, author="bob", expected=1)
    assert kit.centre.applied.version == 2


async def test_of_changes_at_the_same_time_with_a_version_one_wins_and_without_all_do(kit: CentreKit) -> None:
    kit.broker.is_far = True
    outcomes: list[str] = []

    async def change(number: int, expected: int | None) -> None:
        try:
            await kit.centre.change({"limits": {"connects": {"rate": number}}}, author=str(number), expected=expected)
            outcomes.append("done")
        except NotNewest:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        for number in range(1, 6):
            nursery.start_soon(change, number, 0)
    assert sorted(outcomes) == ["done"] + 4 * ["refused"]
    outcomes.clear()
    async with trio.open_nursery() as nursery:
        for number in range(6, 11):
            nursery.start_soon(change, number, None)
    assert outcomes == 5 * ["done"]
    assert kit.centre.applied.version == 6
    assert kit.settings.limits.connects.rate == float((await kit.centre.history(1))[0].author)


async def test_who_is_overtaken_again_and_again_gives_up(kit: CentreKit, monkeypatch: pytest.MonkeyPatch) -> None:
    async def overtaken(_version: ConfigurationVersion) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    monkeypatch.setattr(kit.broker, "configure", overtaken)
    with pytest.raises(BrokerUnavailable, match="others change the configuration at the same time, or wrote"):
        await kit.centre.change(PAYLOAD, author="ada")
    assert len(kit.broker.called("configurations")) == ATTEMPTS
    assert untouched(kit)


@pytest.mark.parametrize("method", ["configurations", "configure"])
async def test_while_the_broker_is_away_nothing_changes(method: str, kit: CentreKit) -> None:
    kit.broker.fail(method, BrokerUnavailable("away"))
    with pytest.raises(BrokerUnavailable):
        await kit.centre.change(PAYLOAD, author="ada")
    assert untouched(kit)


# --- going back -------------------------------------------------------------------------------------------------------


async def test_a_rollback_is_a_new_version(kit: CentreKit) -> None:
    await kit.centre.change(PAYLOAD, author="ada")
    await kit.centre.change({"limits": {"payload": "2KiB"}}, author="bob")
    await kit.centre.restore(1, author="eve")
    assert kit.settings.limits.payload_bytes == 1024
    assert [(one.version, one.author, one.restores) for one in await kit.centre.history(10)] == [
        (3, "eve", 1),
        (2, "bob", None),
        (1, "ada", None),
    ]
    await kit.centre.restore(0, author="eve", expected=3)
    assert kit.settings == kit.layers.build()
    assert kit.centre.applied.overlay == {}


async def test_a_version_that_is_not_kept_is_unknown(kit: CentreKit) -> None:
    for number in range(VERSIONS_KEPT + 1):
        await kit.centre.change({"limits": {"payload": 1000 + number}}, author="ada")
    for version in (1, VERSIONS_KEPT + 2, -1):
        with pytest.raises(UnknownVersion):
            await kit.centre.restore(version, author="ada")
    await kit.centre.restore(2, author="ada")
    assert kit.settings.limits.payload_bytes == 1001


# --- what the broker brings, and the file -----------------------------------------------------------------------------


def version(number: int, **overlay: Any) -> ConfigurationVersion:
    return ConfigurationVersion(number, 1, "somebody", overlay)


@pytest.mark.parametrize(
    "overlay",
    [
        {"a setting of a later notifyd": 1},
        {"broker": {"prefix": "x"}},
        {"heartbeat": {"minimum": "40s"}},
        {"auth": {"api_keys": [{"file": "not here"}]}},
        {"auth": {"api_keys": ["hunter2"]}},
        {"limits": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]},
    ],
)
async def test_a_version_that_this_node_cannot_take_over_changes_nothing_and_is_told(
    overlay: dict[str, Any], kit: CentreKit
) -> None:
    kit.centre.take(version(1, **PAYLOAD))
    kit.centre.take(version(2, **overlay))
    assert kit.settings.limits.payload_bytes == 1024
    assert (kit.centre.applied.version, kit.centre.newest.version) == (1, 2)
    (told,) = kit.events.logged("configuration_refused")
    assert (told["version"], told["problem"]) == (2, kit.centre.problem)
    assert "hunter2" not in told["problem"]
    kit.centre.take(version(3))
    assert (kit.centre.applied.version, kit.centre.problem) == (3, None)


async def test_a_reload_keeps_the_overlay(kit: CentreKit, tmp_path: Path) -> None:
    await kit.centre.change(PAYLOAD, author="ada")
    path = tmp_path / "notifyd.toml"
    path.write_text('[limits]\npayload = "2KiB"\nqueue = "9KiB"\n')
    kit.centre.reload(load_layers(path, {}, {}))
    assert (kit.settings.limits.payload_bytes, kit.settings.limits.queue_bytes) == (1024, 9 * 1024)
    await kit.centre.change({"limits": {"payload": None}}, author="ada")
    assert kit.settings.limits.payload_bytes == 2048


async def test_a_file_that_does_not_go_with_the_overlay_changes_nothing(kit: CentreKit, tmp_path: Path) -> None:
    await kit.centre.change({"heartbeat": {"maximum": "30s"}}, author="ada")
    before = kit.settings
    path = tmp_path / "notifyd.toml"
    path.write_text('[heartbeat]\ninterval = "31s"\n')
    with pytest.raises(ConfigurationError, match=r"notifyd.toml: heartbeat.interval: 31s is not between"):
        kit.centre.reload(load_layers(path, {}, {}))
    assert kit.settings is before
    await kit.centre.change({"heartbeat": {"misses": 3}}, author="ada")
    assert kit.settings.heartbeat.interval_s == 20


async def test_a_reload_tries_again_what_this_node_could_not_take_over(kit: CentreKit, tmp_path: Path) -> None:
    kit.centre.take(version(1, **PAYLOAD))
    kit.centre.take(version(2, heartbeat={"minimum": "40s"}))
    path = tmp_path / "notifyd.toml"
    path.write_text('[heartbeat]\ninterval = "21s"\n')
    kit.centre.reload(load_layers(path, {}, {}))
    assert kit.settings.heartbeat.interval_s == 21
    assert (kit.settings.limits.payload_bytes, kit.centre.applied.version) == (1024, 1)
    assert kit.centre.problem is not None
    path.write_text('[heartbeat]\ninterval = "50s"\n')
    kit.centre.reload(load_layers(path, {}, {}))
    assert (kit.centre.applied.version, kit.centre.problem) == (2, None)
    assert kit.settings.limits.payload_bytes == 64 * 1024


# --- any patch at all -------------------------------------------------------------------------------------------------

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["10s", "1KiB", "2MiB", "40s", "0s", "debug", "a:*", "HS512", "*", "https://a.example", ""])
    | st.text(max_size=5)
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_durations = st.sampled_from(["0s", "1s", "5s", "20s", "30s", "40s", "1h"])
_sizes = st.sampled_from(["1KiB", "4KiB", "1MiB", "3MiB"]) | st.integers(-1, 10_000)
_numbers = st.integers(-1, 50) | st.floats(0.1, 50)
_rates = st.fixed_dictionaries({}, optional={"rate": st.none() | _numbers, "burst": st.none() | _numbers})
_words = st.text(max_size=5)
_topics = st.fixed_dictionaries(
    {"match": st.sampled_from(["a:*", "**", "b", "b::c"])},
    optional={"history": st.integers(-1, 9), "ttl": _durations, "overflow": st.sampled_from(["gap", "none"])},
)
_keys = st.sampled_from(
    [
        {"algorithm": "HS512", "secret": {"file": "key"}},
        {"algorithm": "HS256", "secret": {"file": "key"}, "kid": "k"},
        {"algorithm": "HS512", "secret": {"file": "nothing"}},
        {"algorithm": "HS512", "secret": "hunter2"},
        {"jwks": "{}"},
    ]
)
_fitting: dict[str, st.SearchStrategy[Any]] = {
    "auth.anonymous": st.booleans(),
    "auth.origins": st.lists(st.sampled_from(["*", "https://a.example", "a.example"]), max_size=2),
    "auth.keys": st.lists(_keys, max_size=2),
    "auth.issuer": _words,
    "auth.audience": _words,
    "auth.leeway": _durations,
    "auth.api_keys": st.lists(st.sampled_from([{"file": "key"}, {"file": "nothing"}]), max_size=2),
    "heartbeat.interval": _durations,
    "heartbeat.misses": st.integers(0, 5),
    "heartbeat.floor": _durations,
    "heartbeat.minimum": _durations,
    "heartbeat.maximum": _durations,
    "limits.payload": _sizes,
    "limits.connections": st.fixed_dictionaries({}, optional={"limit": _numbers, "resume": _numbers}),
    "limits.connects": _rates,
    "limits.handshake": _durations,
    "limits.queue": _sizes,
    "limits.messages": _rates,
    "limits.user_messages": _rates,
    "sessions.ttl": _durations,
    "topics": st.lists(_topics, max_size=3),
    "log.format": st.sampled_from(["auto", "json", "text", "xml"]),
    "log.level": st.sampled_from(["debug", "info", "warning", "error", "loud"]),
}
_sections = sorted({key.partition(".")[0] for key in live_keys()})
_fixed = ["node.workers", "node.drain", "listen.http", "broker.url", "tracing.ratio", "debug.echo", *FIXED_SECTIONS]


def _nested(change: tuple[str, Any]) -> Any:
    key, value = change
    section, _, name = key.partition(".")
    return {section: {name: value} if name else value}


def _value_for(key: str) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(key), _fitting[key] | _fitting[key] | st.none()).map(_nested)


_likely = st.sampled_from(live_keys()).flatmap(_value_for)
_unlikely = st.tuples(st.sampled_from(live_keys() + _fixed + _sections), _json).map(_nested)
_patches = st.lists(_likely | _likely | _likely | _likely | _unlikely | _json, min_size=1, max_size=8)


def test_every_key_that_can_change_is_tried() -> None:
    assert sorted(_fitting) == sorted(live_keys())


async def was_refused(kit: CentreKit, patch: Any) -> str | None:
    """Change something; return why it was refused."""
    try:
        await kit.centre.change(patch, author="ada")
    except ConfigurationError as error:
        return str(error)
    return None


@given(_patches)
def test_a_patch_is_refused_and_changes_nothing_or_holds_as_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, patches: list[Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-patch"
    folder.mkdir(exist_ok=True)
    (folder / "key").write_text("a secret of a file, as long as it has to be for HS512, which is 64 bytes long")
    (folder / "notifyd.toml").write_text(FILE)

    async def apply_all() -> None:
        kit = CentreKit(load_layers(folder / "notifyd.toml", {}, {}))
        for patch in patches:
            before = (kit.settings, kit.centre.applied, kit.centre.newest, await kit.centre.history(1000))
            refused = await was_refused(kit, msgspec.json.decode(msgspec.json.encode(patch)))
            if refused is not None:
                assert refused
                assert (kit.settings, kit.centre.applied, kit.centre.newest, await kit.centre.history(1000)) == before
                continue
            assert kit.centre.problem is None
            stored = msgspec.msgpack.decode(msgspec.msgpack.encode(kit.centre.applied), type=ConfigurationVersion)
            assert stored == kit.centre.applied
            restarted = load_layers(folder / "notifyd.toml", {}, {}).build(stored.overlay)
            assert kit.settings == restarted
            shown = msgspec.json.encode(stored.overlay)
            assert b"a secret of a file" not in shown
            assert b"hunter2" not in shown

    run_virtual(apply_all)
