"""Tokens to attack a verifier with, and good ones that must get through: for row 16 in all its forms.

Each function takes the Unix time the tokens are made for.
"""

import base64
import functools
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import RSAAlgorithm, get_default_algorithms

from notifyd.settings import AuthSettings, Secret, TokenKey

ISSUER, AUDIENCE = "https://login.example.com", "notifyd"
SECRET_BYTES = bytes(range(64))
SECRET = Secret("base64:" + base64.b64encode(SECRET_BYTES).decode())
ALGORITHMS = get_default_algorithms()


def encode_part(content: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def make_part(value: Any) -> str:
    """Write a value as a part of a token: bytes and text as they are, anything else as JSON."""
    if isinstance(value, str):
        value = value.encode()
    return encode_part(value if isinstance(value, bytes) else json.dumps(value).encode())


def sign_parts(header: str, payload: str, algorithm: str, key: Any) -> str:
    """Sign two parts as they are, however wrong they may be."""
    signature = ALGORITHMS[algorithm].sign(f"{header}.{payload}".encode(), key)
    return f"{header}.{payload}.{encode_part(signature)}"


@dataclass
class KeyRing:
    """A private key for every algorithm, and the settings of a node that knows the public parts."""

    private: dict[str, Any]
    auth: AuthSettings
    rsa_pem: str
    stranger: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))


def public_pem(key: Any) -> str:
    """Write the public part of a private key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any) -> str:
    """Write a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@functools.cache
def make_key_ring() -> KeyRing:
    """Make the keys, once: a kid for each algorithm, named like it; both curves of EdDSA; one key in a set."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    private: dict[str, Any] = {f"{kind}{bits}": rsa_key for kind in ("RS", "PS") for bits in (256, 384, 512)}
    private |= {"ES256": ec.generate_private_key(ec.SECP256R1()), "ES384": ec.generate_private_key(ec.SECP384R1())}
    private |= {"ES512": ec.generate_private_key(ec.SECP521R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate()}
    keys = [TokenKey(algorithm=name, public_key=public_pem(key), kid=name) for name, key in private.items()]
    for name in ("HS256", "HS384", "HS512"):
        private[name] = SECRET_BYTES
        keys.append(TokenKey(algorithm=name, secret=SECRET, kid=name))
    private["ed448"] = ed448.Ed448PrivateKey.generate()
    keys.append(TokenKey(algorithm="EdDSA", public_key=public_pem(private["ed448"]), kid="ed448"))
    private["set"] = rsa.generate_private_key(65537, 2048)
    member = json.loads(RSAAlgorithm.to_jwk(private["set"].public_key())) | {"kid": "set", "alg": "RS256"}
    keys.append(TokenKey(jwks=json.dumps({"keys": [member]})))
    auth = AuthSettings(keys=tuple(keys), issuer=ISSUER, audience=AUDIENCE)
    return KeyRing(private, auth, public_pem(rsa_key))


def good_claims(now_s: int, **changes: Any) -> dict[str, Any]:
    """Return claims that are accepted; a change to None leaves the claim out."""
    claims = {"sub": "ann", "iss": ISSUER, "aud": AUDIENCE, "iat": now_s, "exp": now_s + 600} | changes
    return {name: value for name, value in claims.items() if value is not None}


def make_token(claims: Any, algorithm: str = "HS512", key: Any = None, **header: Any) -> str:
    """Sign claims (or raw text) with the ring's key for the algorithm; `header` adds to or replaces its members."""
    members = {"alg": algorithm, "typ": "JWT", "kid": algorithm} | header
    members = {name: value for name, value in members.items() if value is not None}
    own = make_key_ring().private[algorithm] if key is None else key
    return sign_parts(make_part(members), make_part(claims), algorithm, own)


def good_tokens(now_s: int) -> dict[str, str]:
    """Return tokens that must be accepted, every algorithm with and without kid among them."""
    ring, claims = make_key_ring(), good_claims(now_s)
    names = [name for name in ring.private if name in ALGORITHMS]
    tokens = {f"{name} with kid": make_token(claims, name) for name in names}
    tokens |= {f"{name} without kid": make_token(claims, name, kid=None) for name in names}
    tokens["EdDSA on Ed448"] = make_token(claims, "EdDSA", ring.private["ed448"], kid="ed448")
    tokens["EdDSA on Ed448 without kid"] = make_token(claims, "EdDSA", ring.private["ed448"], kid=None)
    tokens["key of a set"] = make_token(claims, "RS256", ring.private["set"], kid="set")
    tokens["audience in a list"] = make_token(good_claims(now_s, aud=["other", AUDIENCE]))
    tokens["never expires"] = make_token(good_claims(now_s, exp=None))
    tokens["no iat"] = make_token(good_claims(now_s, iat=None))
    tokens["valid from now"] = make_token(good_claims(now_s, nbf=now_s))
    tokens["signer's clock ahead"] = make_token(good_claims(now_s, iat=now_s + 5))
    tokens["no typ"] = make_token(claims, typ=None)
    tokens["typ at+jwt"] = make_token(claims, typ="at+JWT")
    tokens["thumbprint header"] = make_token(claims, **{"x5t": "abc", "x5t#S256": "def", "cty": "json"})
    tokens["other claims"] = make_token(good_claims(now_s, email="a@example.com", score=1.5, roles={"a": [None, True]}))
    tokens["international user"] = make_token(good_claims(now_s, sub="Žofie 👩‍🚀"))
    tokens["longest user"] = make_token(good_claims(now_s, sub="x" * 255))
    rights = {"subscribe": ["orders:*", "**"], "publish": ["chat:room1"], "topics": ["orders:1"], "jti": "t1"}
    tokens["rights"] = make_token(good_claims(now_s, **rights))
    return tokens


def hostile_tokens(now_s: int) -> dict[str, str]:
    """Return tokens that must be refused."""
    return {
        **_forged(now_s),
        **_badly_timed(now_s),
        **_of_others(now_s),
        **_strange_headers(now_s),
        **_strange_claims(now_s),
        **_strange_shapes(now_s),
        **_flipped(now_s),
    }


def _forged(now_s: int) -> dict[str, str]:
    ring, claims = make_key_ring(), good_claims(now_s)
    payload = make_part(claims)
    tokens = {}
    for name in ("none", "None", "NONE", "nOnE", ""):
        header = make_part({"alg": name, "typ": "JWT"})
        tokens[f"alg {name!r}, no signature"] = f"{header}.{payload}."
        tokens[f"alg {name!r}, some signature"] = f"{header}.{payload}.AAAA"
    for size, secret in (
        ("PEM", ring.rsa_pem.encode()),
        ("PEM without its last line end", ring.rsa_pem.strip().encode()),
    ):
        for kid in ("RS256", "HS256", None):
            header = make_part({"alg": "HS256"} | ({"kid": kid} if kid else {}))
            signature = hmac.digest(secret, f"{header}.{payload}".encode(), "sha256")
            tokens[f"HS256 by the RSA public key's {size}, kid {kid}"] = f"{header}.{payload}.{encode_part(signature)}"
    tokens["HS256 by an empty secret"] = make_token(claims, "HS256", b"")
    tokens["a key nobody configured"] = make_token(claims, "ES256", ring.stranger)
    tokens["a key nobody configured, no kid"] = make_token(claims, "ES256", ring.stranger, kid=None)
    tokens["another algorithm of the same key"] = make_token(claims, "RS384", kid="RS256")
    tokens["PS256 under an RS256 kid"] = make_token(claims, "PS256", kid="RS256")
    tokens["an algorithm not offered"] = make_token(claims, "ES256K", ec.generate_private_key(ec.SECP256K1()))
    tokens["zero ECDSA signature"] = f"{make_part({'alg': 'ES256'})}.{payload}.{encode_part(bytes(64))}"
    tokens["empty ECDSA signature"] = f"{make_part({'alg': 'ES256'})}.{payload}.AA"
    tokens["zero EdDSA signature"] = f"{make_part({'alg': 'EdDSA'})}.{payload}.{encode_part(bytes(64))}"
    tokens["HMAC cut short"] = make_token(claims)[:-20]
    other = make_token(good_claims(now_s, sub="eve"))
    tokens["the signature of another token"] = ".".join([*make_token(claims).split(".")[:2], other.split(".")[2]])
    return tokens


def _badly_timed(now_s: int) -> dict[str, str]:
    cases: dict[str, dict[str, Any]] = {
        "expired": {"exp": now_s - 1},
        "expired now": {"exp": now_s},
        "expired long ago": {"exp": 0},
        "not yet": {"nbf": now_s + 60},
        "issued in the future": {"iat": now_s + 3600},
        "exp negative": {"exp": -1},
        "exp a float": {"exp": now_s + 600.5},
        "exp a text": {"exp": str(now_s + 600)},
        "exp a truth": {"exp": True},
        "exp a list": {"exp": [now_s + 600]},
        "exp beyond every clock": {"exp": 10**30},
        "nbf a text": {"nbf": "0"},
        "nbf a float": {"nbf": 0.0},
        "iat a truth": {"iat": True},
    }
    tokens = {name: make_token(good_claims(now_s, **changes)) for name, changes in cases.items()}
    for word in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "null", f"{now_s + 600}.0", "1e12", "9" * 5000):
        text = json.dumps(good_claims(now_s)).replace(str(now_s + 600), word)
        tokens[f"exp {word[:12]}"] = make_token(text)
    return tokens


def _of_others(now_s: int) -> dict[str, str]:
    cases: dict[str, dict[str, Any]] = {
        "another issuer": {"iss": "https://evil.example.com"},
        "no issuer": {"iss": None},
        "a list of issuers": {"iss": [ISSUER]},
        "an issuer with more": {"iss": ISSUER + "/"},
        "an issuer's object": {"iss": {ISSUER: 1}},
        "another audience": {"aud": "other"},
        "no audience": {"aud": None},
        "a list of other audiences": {"aud": ["other", "notifyd2"]},
        "an empty list of audiences": {"aud": []},
        "a mixed list of audiences": {"aud": [AUDIENCE, 1]},
        "a number for an audience": {"aud": 7},
        "an audience that contains ours": {"aud": AUDIENCE + " other"},
        "nobody": {"sub": None},
        "an empty user": {"sub": ""},
        "a number for a user": {"sub": 7},
        "a list of users": {"sub": ["ann"]},
        "a user too long": {"sub": "x" * 256},
        "a user of 256 bytes": {"sub": "é" * 128},
        "a user with a line end": {"sub": "ann\nroot"},
        "a user with NUL": {"sub": "ann\0"},
        "a user with C1": {"sub": "ann\x9b"},
    }
    return {name: make_token(good_claims(now_s, **changes)) for name, changes in cases.items()}


def _strange_headers(now_s: int) -> dict[str, str]:
    claims = good_claims(now_s)
    kids: list[Any] = ["../../../../dev/null", "' UNION SELECT 'secret", "HS512\0", "hs512", "HS512 ", 7, 1.5, True, []]
    kids += [["HS512"], {"kid": "HS512"}, "k" * 10_000, "", "RS256", "$(id)", "unknown"]
    tokens = {f"kid {str(kid)[:24]!r}": make_token(claims, kid=kid) for kid in kids}
    tokens["kid null"] = sign_parts(make_part('{"alg":"HS512","kid":null}'), make_part(claims), "HS512", SECRET_BYTES)
    own = json.loads(ALGORITHMS["ES256"].to_jwk(make_key_ring().stranger.public_key()))
    members: dict[str, Any] = {
        "jku": "https://evil.example.com/keys",
        "x5u": "https://evil.example.com/chain",
        "jwk": own,
        "x5c": ["MIIB"],
        "zip": "DEF",
        "b64": False,
        "enc": "A256GCM",
    }
    for name, value in members.items():
        tokens[f"{name} in the header, signed by us"] = make_token(claims, **{name: value})
        stranger = make_key_ring().stranger
        tokens[f"{name} in the header, signed by them"] = make_token(
            claims, "ES256", stranger, kid=None, **{name: value}
        )
    for crit in (["exp"], ["b64"], ["unknown"], [], "exp", [7]):
        tokens[f"crit {crit}"] = make_token(claims, crit=crit)
    for kind in ("JWE", "logout+jwt", 7, ["JWT"]):
        tokens[f"typ {kind}"] = make_token(claims, typ=kind)
    for algorithm in (7, ["HS512"], {"HS512": 1}, "hs512", "HS512 ", True):
        header = make_part({"alg": algorithm, "kid": "HS512"})
        tokens[f"alg {algorithm}"] = sign_parts(header, make_part(claims), "HS512", SECRET_BYTES)
    texts = {
        "no alg": '{"typ":"JWT"}',
        "alg null": '{"alg":null}',
        "alg twice": '{"alg":"none","alg":"HS512"}',
        "kid twice": '{"alg":"HS512","kid":"HS256","kid":"HS512"}',
        "alg twice, once escaped": '{"alg":"HS512","\\u0061lg":"HS512"}',
        "a list": '["HS512"]',
        "a text": '"HS512"',
        "nothing": "null",
        "not JSON": "{alg:HS512}",
        "NaN inside": '{"alg":"HS512","x":NaN}',
        "two objects": '{"alg":"HS512"}{"alg":"HS512"}',
        "a lone surrogate": '{"alg":"HS512","x":"\\ud800"}',
        "deep": '{"alg":"HS512","x":' + "[" * 5000 + "]" * 5000 + "}",
        "a byte order mark": '\ufeff{"alg":"HS512"}',
    }
    for name, text in texts.items():
        tokens[f"header: {name}"] = sign_parts(make_part(text), make_part(claims), "HS512", SECRET_BYTES)
    for encoding in ("utf-16", "utf-32"):
        header = encode_part('{"alg":"HS512"}'.encode(encoding))
        tokens[f"header in {encoding}"] = sign_parts(header, make_part(claims), "HS512", SECRET_BYTES)
    return tokens


def _strange_claims(now_s: int) -> dict[str, str]:
    body = json.dumps(good_claims(now_s))[:-1]
    texts = {
        "sub twice": body + ',"sub":"root"}',
        "exp twice": body + f',"exp":{now_s + 900}}}',
        "the same twice": body + ',"sub":"ann"}',
        "sub twice, once escaped": body + ',"s\\u0075b":"root"}',
        "twice, further down": body + ',"x":{"a":1,"a":2}}',
        "twice in a list": body + ',"x":[{"a":1,"a":2}]}',
        "NaN": body + ',"x":NaN}',
        "a number beyond floats": body + ',"x":1e999}',
        "a lone surrogate": body + ',"x":"\\ud800"}',
        "a lone surrogate for a user": body.replace("ann", "\\udfff") + "}",
        "a pair the wrong way round": body + ',"x":"\\udc00\\ud800"}',
        "deep lists": body + ',"x":' + "[" * 5000 + "]" * 5000 + "}",
        "deep objects": body + ',"x":' + '{"a":' * 1500 + "1" + "}" * 1500 + "}",
        "a list": f"[{body}}}]",
        "a text": json.dumps("ann"),
        "a number": "7",
        "null": "null",
        "not JSON": "sub=ann",
        "a comma too many": body + ",}",
        "single quotes": body.replace('"', "'") + "}",
        "something after it": body + "}x",
        "a NUL after it": body + "}\0",
        "a byte order mark": "\ufeff" + body + "}",
    }
    tokens = {f"claims: {name}": make_token(text) for name, text in texts.items()}
    tokens["claims: not UTF-8"] = make_token(body.encode() + b',"x":"\xff\xfe"}')
    tokens["claims: an overlong slash"] = make_token(body.encode() + b',"x":"\xc0\xaf"}')
    tokens["claims: a surrogate in bytes"] = make_token(body.encode() + b',"x":"\xed\xa0\x80"}')
    rights: dict[str, dict[str, Any]] = {
        "subscribe a text": {"subscribe": "**"},
        "subscribe an object": {"subscribe": {"**": True}},
        "subscribe true": {"subscribe": True},
        "subscribe a list of lists": {"subscribe": [["**"]]},
        "publish no pattern": {"publish": ["**:a"]},
        "publish empty": {"publish": [""]},
        "topics a pattern": {"topics": ["orders:*"]},
        "topics a text": {"topics": "orders"},
        "jti a number": {"jti": 7},
    }
    return tokens | {name: make_token(good_claims(now_s, **changes)) for name, changes in rights.items()}


def _strange_shapes(now_s: int) -> dict[str, str]:
    good = make_token(good_claims(now_s))
    header, payload, signature = good.split(".")
    standard = base64.b64encode(json.dumps(good_claims(now_s, sub="ann???>>>")).encode()).decode().rstrip("=")
    return {
        "empty": "",
        "a word": "token",
        "dots": "..",
        "one part": header,
        "two parts": f"{header}.{payload}",
        "four parts": f"{good}.{signature}",
        "five parts, as encryption has": f"{good}.{payload}.{signature}",
        "detached payload": f"{header}..{signature}",
        "no header": f".{payload}.{signature}",
        "a dot more": f"{good}.",
        "a dot before": f".{good}",
        "space before": f" {good}",
        "space after": f"{good} ",
        "a line end after": f"{good}\n",
        "a line end inside": f"{header}.\n{payload}.{signature}",
        "a tab inside": f"{header}\t.{payload}.{signature}",
        "NUL after": f"{good}\0",
        "Bearer before": f"Bearer {good}",
        "quotes": f'"{good}"',
        "padding": f"{good}==",
        "padded payload": sign_parts(header, payload + "=" * (-len(payload) % 4 or 4), "HS512", SECRET_BYTES),
        "standard base64": sign_parts(header, standard, "HS512", SECRET_BYTES),
        "no multiple of a byte": sign_parts(header, payload + "A" * ((1 - len(payload)) % 4), "HS512", SECRET_BYTES),
        "unused bits set": _with_unused_bits(good),
        "percent encoding": good.replace(".", "%2E"),
        "full-width dots": good.replace(".", "．"),
        "Greek alpha for A": good[:-1] + "Α",
        "1 MiB": "A" * 2**20,
        "1 MiB of dots": "." * 2**20,
        "1 MiB of payload": f"{header}.{'A' * 2**20}.{signature}",
        "1 MiB of signature": f"{header}.{payload}.{'A' * 2**20}",
        "1 MiB, signed": make_token(good_claims(now_s, x="x" * 2**20)),
        "lone surrogate": good[:-1] + "\ud800",
        "not ASCII": good + "é",
        "JSON serialization": json.dumps({"payload": payload, "signatures": [{"signature": signature}]}),
    }


def _with_unused_bits(token: str) -> str:
    """Set the last bit of the last character: a decoder that is not strict sees the same bytes (HS512: 4 unused)."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


def _flipped(now_s: int) -> dict[str, str]:
    """Flip bits all over a token, the unused ones at the end of each part included."""
    tokens = {}
    for algorithm in ("HS512", "ES256", "EdDSA"):
        good = make_token(good_claims(now_s), algorithm)
        ends = [place - 1 for place, character in enumerate(good) if character == "."] + [len(good) - 1]
        for place in sorted({*range(0, len(good), 17), *ends}):
            for bit in (0, 1, 5):
                flipped = good[:place] + chr(ord(good[place]) ^ (1 << bit)) + good[place + 1 :]
                tokens[f"{algorithm}: bit {bit} of character {place}"] = flipped
    return tokens
