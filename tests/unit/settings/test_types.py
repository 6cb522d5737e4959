import msgspec
import pytest

from notifyd.settings import Access, AuthSettings, ConnectionLimit, Settings, TopicPolicy, types
from protocol.topics import Pattern


def test_the_first_match_wins_and_there_is_always_one() -> None:
    first = TopicPolicy(match=Pattern("orders:*"), history=1)
    settings = Settings(topics=(first, TopicPolicy(match=Pattern("orders:**"), history=2)))
    assert settings.policy_for("orders:a") is first
    assert settings.policy_for("orders:a:b").history == 2
    implied = settings.policy_for("chat:room1")
    assert (implied.match, implied.history, implied.ttl_s) == (Pattern("**"), 1000, 3600.0)
    assert (implied.publish, implied.subscribe, implied.presence, implied.joins) == (
        Access.TOKEN,
        Access.TOKEN,
        True,
        False,
    )


def test_anonymous_access_opens_the_implied_catch_all_only() -> None:
    written = TopicPolicy(match=Pattern("orders:*"))
    settings = Settings(auth=AuthSettings(anonymous=True), topics=(written,))
    assert settings.policy_for("chat:room1").publish is Access.ANYONE
    assert settings.policy_for("chat:room1").subscribe is Access.ANYONE
    assert settings.policy_for("orders:1").publish is Access.TOKEN


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().limits.payload_bytes = 1  # type: ignore[misc]


def test_resume_is_nine_tenths_of_the_limit() -> None:
    assert [ConnectionLimit(limit=limit).resume for limit in (1, 2, 10, 1000)] == [1, 1, 9, 900]
    assert msgspec.structs.replace(ConnectionLimit(limit=10), limit=20).resume == 9


def test_the_demo_is_on_loopback_only() -> None:
    listen = Settings.demo().listen
    addresses = [listen.websocket, listen.device, listen.http]
    assert all(address is not None and address.is_loopback for address in addresses)
    assert Settings.demo().auth.anonymous


def test_a_host_without_a_name_still_has_a_node_name(monkeypatch: pytest.MonkeyPatch) -> None:
    make_name = types._make_node_name.__wrapped__
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert make_name().startswith("node-")
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 500)
    assert len(make_name()) <= 128
    assert make_name() != make_name()
