"""Whatever is logged, wherever a secret stands in it: it does not come out, in no form of the log."""

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.settings import LogFormat, Secret
from notifyd.telemetry import Telemetry
from notifyd.telemetry.log import SECRET_FIELDS, WITHHELD, without_secrets
from tests.kit.memory_node import SECRET, open_memory_node, settings

FORMS: list[LogFormat] = ["json", "text"]

BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

opaque = st.text(BASE64URL, min_size=12, max_size=40).map(lambda text: f"hunter2{text}")
"""A password, an API key, a session: nothing tells by its form what it is."""

jwts = st.tuples(*[st.text(BASE64URL, min_size=8, max_size=30)] * 3).map(
    lambda parts: f"eyJ{parts[0]}.hunter2{parts[1]}.{parts[2]}"
)

secret_names = st.one_of(
    st.sampled_from(sorted(SECRET_FIELDS)),
    st.sampled_from(["X-Access-Token", "refresh_token", "client_secret", "Set-Cookie", "db_password", "API-Key"]),
).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title(), name.replace("_", "-")]))

harmless = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20))

texts_around = st.sampled_from(
    [
        "GET /ws?topics=a&token={}&x=1",
        "Authorization: Bearer {}",
        "cannot reach redis://user:{}@127.0.0.1:6379/0",
        'body {{"token": "{}", "x": 1}}',
        "Cookie: a={}; b=2",
        "header authorization=Bearer {}",
        "password={}",
        "{{'api_key': '{}'}}",
        "x-api-key: {}",
    ]
)


class Shown:
    """Something that is no plain data."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"Shown({self._text})"


class Broken:
    def __repr__(self) -> str:
        raise ValueError("hunter2")


in_text = st.tuples(texts_around, opaque).map(lambda pair: pair[0].format(pair[1]))
in_bare_text = st.tuples(st.text(" a:'\"=(-_", max_size=3), jwts, st.text(" :'\")", max_size=3)).map("".join)
texts = st.one_of(in_text, in_bare_text)
leaves = st.one_of(
    texts,
    texts.map(lambda text: text.encode()),
    texts.map(ValueError),
    texts.map(Shown),
    st.builds(Secret, opaque),
    st.dictionaries(
        secret_names, st.one_of(opaque, st.lists(opaque), st.dictionaries(st.just("x"), opaque)), min_size=1
    ),
    st.dictionaries(in_text, harmless, min_size=1, max_size=2),
    harmless,
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "headers", "query"]), inner, max_size=3),
    ),
    max_leaves=8,
)
names = st.one_of(st.sampled_from(["error", "reason", "traceback", "address", "problem"]), st.text("abc_", min_size=1))


def lines_of(form: LogFormat, fields: dict[str, Any]) -> str:
    stream = io.StringIO()
    Telemetry("debug", form=form, stream=stream).log("info", "something", **fields)
    return stream.getvalue()


@given(st.dictionaries(names, nested, max_size=4), st.dictionaries(secret_names, opaque, max_size=2))
def test_no_secret_comes_out_wherever_it_stands(fields: dict[str, Any], named: dict[str, str]) -> None:
    for form in FORMS:
        written = lines_of(form, {**fields, **named})
        assert "hunter2" not in written
        assert written.endswith("\n")
        assert "something" in written


@given(st.dictionaries(names, nested, max_size=4))
def test_a_line_is_one_line_and_json(fields: dict[str, Any]) -> None:
    written = lines_of("json", {"a": "1\n2", **fields})
    assert len(written.splitlines()) == 1
    assert json.loads(written)["event"] == "something"
    assert len(lines_of("text", {"a": "1\n2\x1b[2J\u2028", **fields}).splitlines()) >= 1


@given(st.dictionaries(names, st.one_of(st.integers(), st.booleans(), st.none(), st.text(" abcxyz:/.", max_size=30))))
def test_what_is_no_secret_comes_out_as_it_is(fields: dict[str, Any]) -> None:
    told = json.loads(lines_of("json", fields))
    assert {name: told[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a eyJhbGciOi.eyJzdWIi.c2ln b", "a (withheld) b"),
        ("eyJhbeyJGci.hunter2.hunter2", "eyJhb(withheld)"),
        ("eyJhbGcieyJ.hunter2.hunter2", "eyJhbGci(withheld)"),
        ("redis://user:hun@ter2@127.0.0.1:6379", "redis://(withheld)@127.0.0.1:6379"),
    ],
)
def test_of_what_is_only_nearly_of_its_form_the_secret_does_not_come_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "part", ["eyJ", "//", "//a", "a@", "token=", "token'", "bearer ", "bearer", "authorization", " "]
)
def test_no_text_takes_long(part: str) -> None:
    began_s = time.process_time()
    without_secrets(part * 100_000)
    assert time.process_time() - began_s < 5, "many times what it takes; by the square it would be half a minute"


def test_what_cannot_be_shown_loses_no_line() -> None:
    told = json.loads(lines_of("json", {"what": Broken()}))
    assert told["what"] == "(Broken that cannot be shown: ValueError)"


@pytest.mark.parametrize("form", FORMS)
async def test_nothing_of_a_conversation_comes_out(form: LogFormat, autojump_clock: object) -> None:
    """A client with a token, a session and payloads, at the level that writes most: none of it is in the log."""
    stream = io.StringIO()
    telemetry: Any = Telemetry("debug", form=form, stream=stream)
    async with open_memory_node(settings(), events=telemetry) as node:
        token = node.token("ada")
        browser = await node.connected("websocket", token=token)
        session = node.connections[0].subscriber
        assert session is not None
        await browser.ask("subscribe", topic="orders:status")
        await browser.ask("publish", topic="orders:status", data={"card": "hunter2"})
        await browser.ask("refresh", token="hunter2.hunter2.hunter2")
        device = await node.device()
        await device.send({"op": "connect", "id": 1, "token": f"{token}x"})
        await device.end()
        node.cancel_connections()
        await node.let_go()
    written = stream.getvalue()
    assert "token_refused" in written
    assert "connection_closed" in written
    for secret in ("hunter2", token, session.session, SECRET):
        assert secret not in written
    assert WITHHELD not in written  # nobody even tried
