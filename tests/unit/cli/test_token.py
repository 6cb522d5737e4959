import time
from pathlib import Path

import jwt
import pytest

from notifyd.auth.tokens import Verifier
from notifyd.settings import load
from protocol.topics import Pattern
from tests.reliability.tokens import make_key_ring, public_pem
from tests.unit.cli.command_line import Run

KEYS = f"""
[auth]
issuer = "i"
keys = [
    {{ algorithm = "ES256", public_key = '''{public_pem(make_key_ring().private["ES256"])}''', kid = "public" }},
    {{ algorithm = "HS512", secret = "{"s" * 64}", kid = "first" }},
    {{ algorithm = "HS256", secret = "{"t" * 32}", kid = "second" }},
]
"""


@pytest.fixture
def auth(run: Run) -> Verifier:
    Path("notifyd.toml").write_text(KEYS)
    return Verifier(load(Path("notifyd.toml"), {}, {}).auth, time.time)


def test_the_token_alone_is_printed_and_a_node_accepts_it(run: Run, auth: Verifier) -> None:
    rights = [
        "--subscribe",
        "orders:*",
        "--subscribe",
        "chat:**",
        "--publish",
        "chat:room1",
        "--topics",
        "orders:1,chat:a",
    ]
    code, out, err = run("token", "--user", "ann", *rights, "--expires", "15m")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    identity = auth.verify(out.strip())
    assert identity.user == "ann"
    assert len(identity.token_id or "") == 16
    assert identity.subscribe == (Pattern("orders:*"), Pattern("chat:**"))
    assert identity.publish == (Pattern("chat:room1"),)
    assert identity.topics == ("orders:1", "chat:a")
    assert identity.expires_s is not None
    assert 890 <= identity.expires_s - time.time() <= 901


def test_its_id_is_another_each_time_and_told_on_request(run: Run, auth: Verifier) -> None:
    told = []
    for _ in range(2):
        code, out, err = run("token", "--user", "ann", "--show-id")
        assert (code, err) == (0, f"token id: {auth.verify(out.strip()).token_id}\n")
        told.append(err)
    assert told[0] != told[1]


def test_it_holds_for_an_hour_unless_told_otherwise(run: Run, auth: Verifier) -> None:
    expires_s = auth.verify(run("token", "--user", "ann").out.strip()).expires_s
    assert expires_s is not None
    assert 3590 <= expires_s - time.time() <= 3601
    assert auth.verify(run("token", "--user", "ann", "--expires", "never").out.strip()).expires_s is None


def test_the_key_can_be_chosen(run: Run, auth: Verifier) -> None:
    assert jwt.get_unverified_header(run("token", "--user", "a").out.strip())["kid"] == "first"
    assert jwt.get_unverified_header(run("token", "--user", "a", "--kid", "second").out.strip())["kid"] == "second"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--user", ""], 1, "no node would accept this token: sub is missing, empty"),
        (["--user", "a", "--subscribe", "a:**:b"], 1, "no node would accept this token: a permission is not a topic"),
        (["--user", "a", "--topics", "a:*"], 1, "no node would accept this token: topics holds what is no topic"),
        (["--user", "a", "--kid", "third"], 1, "no key has the kid 'third'; those that can sign: first, second"),
        (["--user", "a", "--kid", "public"], 1, "no key can sign: tokens are signed with a secret"),
        (["--user", "a", "--expires", "soon"], 2, 'expected a duration such as "30s"'),
        (["--user", "a", "--expires", "500ms"], 2, "a token has to hold for at least 1s"),
        (["--user", "a", "--config", "none.toml"], 1, "none.toml: no such file"),
    ],
)
def test_errors(arguments: list[str], code: int, error: str, run: Run, auth: Verifier) -> None:
    outcome = run("token", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert error in outcome.err


def test_without_a_secret_it_says_what_to_do(run: Run) -> None:
    Path("notifyd.toml").write_text("[auth]\nanonymous = true")
    assert "add a secret to auth.keys (`notifyd init` writes one)" in run("token", "--user", "a").err
