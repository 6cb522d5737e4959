import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from notifyd.auth.verification_keys import load_keys
from notifyd.errors import ConfigurationError
from notifyd.settings import AuthSettings, Secret, TokenKey
from tests.certificates import write_certificates
from tests.reliability.tokens import make_key_ring, public_pem

RING = make_key_ring()


def member(kind: Any, name: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(kind.to_jwk(RING.private[name].public_key()))
    return made | more


EC_KEY = member(ECAlgorithm, "ES256", kid="ec", alg="ES256", use="sig")
RSA_KEY = member(RSAAlgorithm, "RS256", kid="rsa")
OKP_KEY = member(OKPAlgorithm, "EdDSA", kid="okp", alg="EdDSA")


def load(*keys: TokenKey) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.kid) for key in load_keys(AuthSettings(keys=keys))]


def jwks(*members: Any, algorithm: Any = None) -> TokenKey:
    return TokenKey(algorithm=algorithm, jwks=json.dumps({"keys": members}))


def problem(*keys: TokenKey) -> tuple[str, str]:
    with pytest.raises(ConfigurationError) as error:
        load(*keys)
    assert "\n" not in str(error.value)
    return error.value.key, error.value.reason


def test_a_set_gives_a_key_for_each_member_of_use() -> None:
    others = [
        {"kty": "oct-whatever", "alg": "HS256"},
        {"kty": "EC", "alg": "ES256K"},
        {"kty": "RSA", "alg": "RSA-OAEP"},
    ]
    encryption = EC_KEY | {"use": "enc"}
    key = jwks(EC_KEY, OKP_KEY, RSA_KEY | {"alg": "PS512"}, encryption, *others)
    assert load(key) == [("ES256", "ec"), ("EdDSA", "okp"), ("PS512", "rsa")]


def test_the_algorithm_beside_a_set_holds_for_members_that_name_none() -> None:
    assert load(jwks(RSA_KEY, EC_KEY, algorithm="RS384")) == [("RS384", "rsa")]
    assert load(jwks(RSA_KEY, member(ECAlgorithm, "ES256"), algorithm="ES256")) == [("ES256", None)]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (jwks(RSA_KEY), 'a key of the set names no "alg"'),
        (jwks(EC_KEY, algorithm="RS256"), "holds no key for RS256"),
        (jwks(EC_KEY | {"alg": "ES256K"}), "holds no key for a supported algorithm"),
        (jwks(EC_KEY | {"alg": {}}), "holds no key for a supported algorithm"),
        (jwks(EC_KEY | {"alg": ["ES256"]}), "holds no key for a supported algorithm"),
        (jwks(EC_KEY | {"kid": 7}), "holds a kid that is not text"),
        (jwks(EC_KEY | {"alg": "ES384"}), "cannot be used: The key's curve 'secp256r1' does not match"),
        (jwks(EC_KEY | {"x": "AA"}), "cannot be used"),
        (jwks(EC_KEY | {"x": 7}), "cannot be used"),
        (jwks({"kty": "RSA", "alg": "RS256", "n": "AQAB"}), "cannot be used"),
        (jwks(OKP_KEY | {"x": "AA"}), "cannot be used"),
    ],
)
def test_sets_that_cannot_be_used(key: TokenKey, reason: str) -> None:
    path, said = problem(TokenKey(algorithm="HS256", secret=Secret("x")), key)
    assert path == "auth.keys[1].jwks"
    assert reason in said


@pytest.mark.parametrize(
    ("algorithm", "pem"),
    [
        ("RS256", public_pem(RING.private["ES256"])),
        ("ES256", public_pem(RING.private["RS256"])),
        ("ES256", public_pem(RING.private["ES384"])),
        ("ES512", public_pem(ec.generate_private_key(ec.SECP256K1()))),
        ("EdDSA", public_pem(RING.private["ES256"])),
        ("PS256", public_pem(dsa.generate_private_key(2048))),
        ("RS256", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        ("ES256", "-----BEGIN PUBLIC KEY-----"),
        ("EdDSA", "-----BEGIN NONSENSE-----"),
    ],
)
def test_public_keys_that_their_algorithm_cannot_use(algorithm: Any, pem: str) -> None:
    path, reason = problem(TokenKey(algorithm=algorithm, public_key=pem))
    assert path == "auth.keys[0].public_key"
    assert f"cannot be used with {algorithm}" in reason


def test_a_certificate_is_no_public_key(tmp_path: Path) -> None:
    path, reason = problem(TokenKey(algorithm="ES256", public_key=write_certificates(tmp_path).server.read_text()))
    assert path == "auth.keys[0].public_key"
    assert "is a certificate; take the key out of it" in reason


@pytest.mark.parametrize("secret", ["", json.dumps(EC_KEY), "ssh-rsa AAAA"])
def test_secrets_that_are_none(secret: str) -> None:
    path, reason = problem(TokenKey(algorithm="HS256", secret=Secret(secret)))
    assert path == "auth.keys[0].secret"
    assert EC_KEY["x"] not in reason


def test_a_public_key_in_der_is_no_secret() -> None:
    lines = public_pem(RING.private["ES256"]).splitlines()[1:-1]
    der = base64.b64decode("".join(lines))
    key = TokenKey(algorithm="HS256", secret=Secret("base64:" + base64.b64encode(der).decode()))
    assert "should not be used as an HMAC secret" in problem(key)[1]
