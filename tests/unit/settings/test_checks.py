import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from notifyd.settings import (
    Address,
    AuthSettings,
    BrokerSettings,
    ConnectionLimit,
    DebugSettings,
    HeartbeatSettings,
    LimitSettings,
    ListenSettings,
    Network,
    NodeSettings,
    ProxyProtocol,
    Secret,
    Settings,
    TokenKey,
    TracingSettings,
    Url,
)
from notifyd.settings.checks import check_settings, find_weaknesses
from notifyd.settings.names import dotted

EC_JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "alg": "ES256"}


def jwks(*members: Any) -> str:
    return json.dumps({"keys": list(members)})


def keys(*given: TokenKey) -> Settings:
    return Settings(auth=AuthSettings(keys=given))


def findings(settings: Settings, check: Callable[[Settings], Any] = check_settings) -> list[tuple[str, str]]:
    return [(dotted(path), reason) for path, reason in check(settings)]


GOOD: dict[str, Settings] = {
    "the defaults": Settings(),
    "the demo": Settings.demo(),
    "every kind of key": keys(
        TokenKey(algorithm="HS512", secret=Secret("s"), kid="1"),
        TokenKey(algorithm="HS512", secret=Secret("base64:AAAA")),
        TokenKey(algorithm="ES256", public_key="-----BEGIN PUBLIC KEY-----", kid="2"),
        TokenKey(jwks=jwks(EC_JWK | {"kid": "3"}, EC_JWK)),
        TokenKey(jwks=jwks({"use": "enc", "kid": "1"}, EC_JWK | {"use": "sig", "kid": 7})),
    ),
    "port 0 twice": Settings(listen=ListenSettings(websocket=Address("::1", 0), device=Address("::1", 0))),
    "one port of two addresses": Settings(listen=ListenSettings(device=Address("127.0.0.2", 7500))),
    "echo on loopback": Settings(debug=DebugSettings(echo=True)),
    "a collector": Settings(
        tracing=TracingSettings(endpoint=Url("https://key:s3@traces.example:4318/otlp"), ratio=1.0)
    ),
    "origins": Settings(auth=AuthSettings(origins=("https://a", "*", "null"))),
    "resume at the limit": Settings(limits=LimitSettings(connections=ConnectionLimit(limit=5, resume=5))),
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_found_in_good_settings(name: str) -> None:
    assert findings(GOOD[name]) == []


def auth_keys_case(key: TokenKey) -> Settings:
    return keys(key)


BAD: list[tuple[Settings, str, str]] = [
    (Settings(node=NodeSettings(name="a\n")), "node.name", "cannot be printed"),
    (Settings(node=NodeSettings(workers=2)), "node.workers", "2 processes need a shared broker"),
    (Settings(broker=BrokerSettings(timeout_s=0.01)), "broker.timeout", "from 50ms to 30s"),
    (Settings(broker=BrokerSettings(url=Url("amqp://h"))), "broker.url", "amqp://h names no broker"),
    (Settings(broker=BrokerSettings(memory_bytes=5)), "broker.memory", "at least 1MiB"),
    (Settings(listen=ListenSettings(websocket=None, device=None, http=None)), "listen", "every listener is off"),
    (Settings(listen=ListenSettings(http=Address("127.0.0.1", 7500))), "listen.http", "is also listen.websocket"),
    (
        Settings(debug=DebugSettings(echo=True), listen=ListenSettings(websocket=Address("0.0.0.0", 1))),
        "debug.echo",
        "only while listen.websocket is a loopback address",
    ),
    (Settings(debug=DebugSettings(echo=True), listen=ListenSettings(websocket=None)), "debug.echo", "loopback"),
    (Settings(auth=AuthSettings(origins=("https://A",))), "auth.origins[0]", 'got "https://A"'),
    (Settings(auth=AuthSettings(origins=("https://a", "https://a/"))), "auth.origins[1]", "expected an origin"),
    (keys(TokenKey(algorithm="HS512")), "auth.keys[0]", "got none of them"),
    (
        keys(TokenKey(algorithm="HS512", secret=Secret("s"), jwks="x")),
        "auth.keys[0]",
        "expected exactly one of secret, public_key and jwks, got secret and jwks",
    ),
    (keys(TokenKey(secret=Secret("s"))), "auth.keys[0].algorithm", "is required here"),
    (keys(TokenKey(algorithm="ES256", secret=Secret("s"))), "auth.keys[0].secret", "ES256 needs a public_key"),
    (keys(TokenKey(algorithm="HS256", public_key="p")), "auth.keys[0].public_key", "HS256 needs a secret"),
    (keys(TokenKey(algorithm="HS256", jwks=jwks(EC_JWK))), "auth.keys[0].jwks", "HS256 needs a secret"),
    (keys(TokenKey(algorithm="HS256", secret=Secret("-----BEGIN X"))), "auth.keys[0].secret", "belong in public_key"),
    (keys(TokenKey(algorithm="HS256", secret=Secret("base64:?"))), "auth.keys[0].secret", "is not base64"),
    (
        keys(TokenKey(algorithm="ES256", public_key="-----BEGIN EC PRIVATE KEY-----")),
        "auth.keys[0].public_key",
        "is a private key",
    ),
    (keys(TokenKey(algorithm="ES256", public_key="key.pem")), "auth.keys[0].public_key", 'given as { file = "path" }'),
    (keys(TokenKey(jwks="key.json")), "auth.keys[0].jwks", "is not JSON"),
    (keys(TokenKey(jwks="[" * 100_000)), "auth.keys[0].jwks", "is not JSON"),
    (keys(TokenKey(jwks=jwks(EC_JWK | {"kid": "\ud800"}))), "auth.keys[0].jwks", "is not JSON"),
    (keys(TokenKey(jwks="[]")), "auth.keys[0].jwks", "is not a JSON Web Key Set"),
    (keys(TokenKey(jwks='{"keys": [1]}')), "auth.keys[0].jwks", "is not a JSON Web Key Set"),
    (keys(TokenKey(jwks=jwks({"use": "enc"}))), "auth.keys[0].jwks", "holds no key for signatures"),
    (keys(TokenKey(jwks=jwks(EC_JWK | {"d": "x"}))), "auth.keys[0].jwks", "holds a private or secret key"),
    (keys(TokenKey(jwks=jwks({"kty": "oct", "k": "x"}))), "auth.keys[0].jwks", "holds a private or secret key"),
    (keys(TokenKey(jwks=jwks(EC_JWK), kid="1")), "auth.keys[0].kid", "stands in each key of the jwks"),
    (
        keys(*[TokenKey(algorithm="HS512", secret=Secret("s"), kid="1")] * 2),
        "auth.keys[1].kid",
        '"1" is also the kid of auth.keys[0]',
    ),
    (
        keys(TokenKey(algorithm="HS512", secret=Secret("s"), kid="1"), TokenKey(jwks=jwks(EC_JWK | {"kid": "1"}))),
        "auth.keys[1].kid",
        "a kid names one key",
    ),
    (Settings(tracing=TracingSettings(endpoint=Url("127.0.0.1:4318"))), "tracing.endpoint", "http://127.0.0.1:4318"),
    (Settings(tracing=TracingSettings(endpoint=Url("grpc://h:4317"))), "tracing.endpoint", "OTLP over HTTP"),
    (Settings(tracing=TracingSettings(endpoint=Url("http://:4318"))), "tracing.endpoint", "OTLP over HTTP"),
    (Settings(tracing=TracingSettings(endpoint=Url("http://h:port"))), "tracing.endpoint", "OTLP over HTTP"),
    (Settings(heartbeat=HeartbeatSettings(minimum_s=0)), "heartbeat.minimum", "above zero"),
    (
        Settings(heartbeat=HeartbeatSettings(interval_s=0.5)),
        "heartbeat.interval",
        "500ms is not between heartbeat.minimum (1s) and heartbeat.maximum (1h)",
    ),
    (Settings(heartbeat=HeartbeatSettings(maximum_s=20)), "heartbeat.interval", "30s is not between"),
    (Settings(limits=LimitSettings(payload_bytes=0)), "limits.payload", "from 1 byte"),
    (Settings(limits=LimitSettings(payload_bytes=2 * 2**20 + 1)), "limits.payload", "to 2MiB"),
    (
        Settings(limits=LimitSettings(connections=ConnectionLimit(limit=5, resume=6))),
        "limits.connections.resume",
        "not be above the limit of 5",
    ),
    (Settings(limits=LimitSettings(handshake_s=0)), "limits.handshake", "above zero"),
    (Settings(limits=LimitSettings(queue_bytes=5)), "limits.queue", "at least 4KiB"),
]


@pytest.mark.parametrize(("settings", "key", "reason"), BAD, ids=[f"{key}-{reason[:20]}" for _, key, reason in BAD])
def test_what_is_wrong_is_named(settings: Settings, key: str, reason: str) -> None:
    (found,) = findings(settings)
    assert found[0] == key
    assert reason in found[1]


EVERYBODY = Network("0.0.0.0/0")
STRONG = TokenKey(algorithm="HS512", secret=Secret("x" * 64))
SAFE = Settings(auth=AuthSettings(keys=(STRONG,), api_keys=(Secret("y" * 32),)))


def changed(**auth: Any) -> Settings:
    return msgspec.structs.replace(SAFE, auth=msgspec.structs.replace(SAFE.auth, **auth))


WEAK: list[tuple[Settings, str, str]] = [
    (changed(keys=(TokenKey(algorithm="HS512", secret=Secret("x" * 63)),)), "auth.keys[0].secret", "at least 64 bytes"),
    (changed(keys=(STRONG, TokenKey(algorithm="HS256", secret=Secret("base64:AAAA")))), "auth.keys[1].secret", "32"),
    (changed(api_keys=(Secret("y" * 32), Secret("short"))), "auth.api_keys[1]", "is weak"),
    (changed(keys=()), "auth.keys", "no client can connect"),
    (changed(origins=("*",)), "auth.origins", "lets every web page connect"),
    (
        msgspec.structs.replace(changed(api_keys=()), listen=ListenSettings(http=Address("0.0.0.0", 1))),
        "auth.api_keys",
        "the HTTP API refuses everyone",
    ),
    (
        msgspec.structs.replace(SAFE, listen=ListenSettings(trusted_proxies=(Network("10.0.0.1"), Network("::/0")))),
        "listen.trusted_proxies[1]",
        "::/0 is everybody",
    ),
    (
        msgspec.structs.replace(SAFE, listen=ListenSettings(proxy_protocol=ProxyProtocol(device=(EVERYBODY,)))),
        "listen.proxy_protocol.device[0]",
        "0.0.0.0/0 is everybody",
    ),
    (
        msgspec.structs.replace(SAFE, listen=ListenSettings(device=Address("0.0.0.0", 1))),
        "listen.tls",
        "0.0.0.0:1 travel unencrypted",
    ),
]


@pytest.mark.parametrize(("settings", "key", "reason"), WEAK, ids=[f"{key}-{reason[:20]}" for _, key, reason in WEAK])
def test_what_is_unwise_is_named(settings: Settings, key: str, reason: str) -> None:
    assert findings(settings) == []
    (found,) = findings(settings, find_weaknesses)
    assert found[0] == key
    assert reason in found[1]


def test_safe_settings_have_no_weakness() -> None:
    assert findings(SAFE, find_weaknesses) == []
    public = TokenKey(algorithm="ES256", public_key="-----BEGIN PUBLIC KEY-----")
    assert findings(changed(keys=(public, TokenKey(jwks=jwks(EC_JWK)))), find_weaknesses) == []
