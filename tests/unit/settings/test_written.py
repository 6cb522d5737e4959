"""Settings as text: everything is shown but secrets, and it is read back the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.settings import (
    Address,
    AuthSettings,
    BrokerSettings,
    HeartbeatSettings,
    Layers,
    ListenSettings,
    LogSettings,
    Network,
    ProxyProtocol,
    Secret,
    Settings,
    Tls,
    TokenKey,
    TopicPolicy,
    Url,
)
from notifyd.settings.written import written
from protocol.topics import Pattern

FULL = Settings(
    listen=ListenSettings(
        device=None,
        http=Address("::1", 80),
        tls=Tls(certificate=Path("/c"), key=Path("/k")),
        proxy_protocol=ProxyProtocol(websocket=(Network("10.0.0.0/8"),)),
    ),
    broker=BrokerSettings(url=Url("redis://ada:hunter2@h:1/0"), memory_bytes=3 * 2**20 + 1, timeout_s=0.051234),
    auth=AuthSettings(
        keys=(TokenKey(algorithm="HS512", secret=Secret("hunter2"), kid="k"),), api_keys=(Secret("hunter2"),)
    ),
    topics=(TopicPolicy(match=Pattern("a:**"), ttl_s=90.0),),
)


def test_secrets_are_withheld_and_all_else_is_told() -> None:
    told = written(FULL)
    assert "hunter2" not in msgspec.json.encode(told).decode()
    assert told["auth"]["api_keys"] == ["(withheld)"]
    assert told["broker"]["url"] == "redis://hidden@h:1/0"
    assert told["broker"]["memory"] == "3145729B"
    assert told["listen"] == {
        "websocket": "127.0.0.1:7500",
        "device": "",
        "http": "[::1]:80",
        "tls": {"certificate": "/c", "key": "/k", "client_ca": None},
        "proxy_protocol": {"websocket": ["10.0.0.0/8"], "device": []},
        "trusted_proxies": [],
    }
    assert told["topics"][0] == {
        "match": "a:**",
        "history": 1000,
        "ttl": "90s",
        "presence": True,
        "joins": False,
        "overflow": "disconnect",
        "publish": "token",
        "subscribe": "token",
        "trace": False,
    }


@pytest.mark.parametrize("settings", [FULL, Settings(), Settings.demo()])
def test_what_is_written_is_read_back_the_same(settings: Settings) -> None:
    layers = Layers.of(settings)
    assert layers.build() is settings
    assert layers.build({"log": {}}) == settings
    assert layers.build({"log": {"level": "error"}}) == msgspec.structs.replace(
        settings, log=LogSettings(level="error")
    )


@given(st.floats(0.001, 1e6), st.integers(4096, 2**40))
def test_no_duration_and_no_size_changes_on_the_way(seconds: float, size_bytes: int) -> None:
    seconds = round(seconds, 6)
    beat = HeartbeatSettings(floor_s=seconds)
    settings = Settings(heartbeat=beat, broker=BrokerSettings(memory_bytes=2**20 + size_bytes))
    assert Layers.of(settings).build({"log": {}}) == settings


def test_layers_can_be_built_for_somebody_else() -> None:
    def adapt(settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, log=LogSettings(level="error"))

    layers = Layers.of(FULL)
    adapted = layers.adapted(adapt)
    assert layers.build() == FULL
    overlay: Mapping[str, Any] = {"limits": {"payload": "1KiB"}}
    for built in (adapted.build(), adapted.build(overlay)):
        assert built.log.level == "error"
    assert adapted.build(overlay).limits.payload_bytes == 1024
