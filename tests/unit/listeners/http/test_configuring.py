"""`/v1/config`: looking, changing, going back, and every way of getting it wrong."""

import json
from typing import Any

import pytest

from notifyd.errors import BrokerUnavailable
from notifyd.listeners.http.configuring import MAX_AUTHOR_CHARACTERS, PATCH_BYTES
from notifyd.settings import AuthSettings, Layers, Secret, Settings
from notifyd.settings.overlay import live_keys
from tests.http_client import Answer, HttpClient
from tests.kit.centre_kit import UNIX_S, CentreKit
from tests.unit.listeners.http.conftest import Start
from tests.unit.listeners.http.node_stand_in import NodeStandIn

PATH = "/v1/config"
PAYLOAD = {"limits": {"payload": "1KiB"}}


def named(headers: dict[str, str]) -> list[tuple[str, Any]]:
    return [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]


async def patch(client: HttpClient, body: Any, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.ask("PATCH", PATH, content, named(headers))


async def roll_back(client: HttpClient, body: Any, **headers: str) -> Answer:
    return await client.ask("POST", f"{PATH}/rollback", json.dumps(body).encode(), named(headers))


async def test_the_settings_in_force_are_shown_without_secrets(client: HttpClient, backend: NodeStandIn) -> None:
    backend.use(CentreKit(Layers.of(Settings(auth=AuthSettings(api_keys=(Secret("hunter2"),))))))
    answer = await client.get(PATH)
    assert (answer.status, answer.headers["etag"]) == (200, '"0"')
    assert b"hunter2" not in answer.body
    found = answer.json
    assert found["settings"]["auth"]["api_keys"] == ["(withheld)"]
    assert found["settings"]["limits"]["payload"] == "64KiB"
    assert found["live"] == live_keys()
    rest = {name: found[name] for name in ("version", "newest", "problem", "stored", "overlay")}
    assert rest == {"version": 0, "newest": 0, "problem": None, "stored": False, "overlay": {}}


async def test_a_patch_holds_when_it_is_answered(client: HttpClient, backend: NodeStandIn) -> None:
    answer = await patch(client, PAYLOAD)
    assert (answer.status, answer.headers["etag"]) == (200, '"1"')
    assert (answer.json["version"], answer.json["overlay"]) == (1, PAYLOAD)
    assert answer.json["settings"]["limits"]["payload"] == "1KiB"
    assert backend.settings.limits.payload_bytes == 1024
    assert (await client.get(PATH)).json == answer.json


async def test_the_history_is_told_the_newest_first(client: HttpClient) -> None:
    assert (await client.get(f"{PATH}/history")).json == {"versions": [], "more": False}
    await patch(client, PAYLOAD)
    await roll_back(client, {"version": 0})
    time = int(UNIX_S * 1000)
    versions = [
        {"version": 2, "time": time, "author": "local", "overlay": {}, "restores": 0},
        {"version": 1, "time": time, "author": "local", "overlay": PAYLOAD},
    ]
    assert (await client.get(f"{PATH}/history")).json == {"versions": versions, "more": False}
    assert (await client.get(f"{PATH}/history?limit=1")).json == {"versions": versions[:1], "more": True}


async def test_who_it_was_is_noted_with_the_key_that_they_had(start: Start, backend: NodeStandIn) -> None:
    client = await start(keys=("k1", "k2"), key="k2")
    for number, (headers, author) in enumerate(
        [
            ({}, "api key 2"),
            ({"x_author": "ada@desk"}, "ada@desk (api key 2)"),
            ({"x_author": "Zoë  Ångström"}, "Zoë Ångström (api key 2)"),
            ({"x_author": ""}, "api key 2"),
            ({"x_author": "a" * MAX_AUTHOR_CHARACTERS}, "a" * MAX_AUTHOR_CHARACTERS + " (api key 2)"),
        ]
    ):
        assert (await patch(client, {"limits": {"payload": 1000 + number}}, **headers)).status == 200
        assert backend.centre.applied.author == author
    assert (await patch(client, PAYLOAD, x_author="a" * (MAX_AUTHOR_CHARACTERS + 1))).error[:2] == (400, "bad_request")
    for name in (b"a\xe9b", "a\u202eb".encode()):
        answer = await client.ask("PATCH", PATH, b"{}", [("x-author", name)])  # type: ignore[list-item]
        assert answer.error[:2] == (400, "bad_request")


@pytest.mark.parametrize("text", ["1", '"1"', "*"])
async def test_a_change_of_the_newest_version_is_taken(text: str, client: HttpClient) -> None:
    await patch(client, PAYLOAD)
    assert (await patch(client, {"limits": {"queue": "8KiB"}}, if_match=text)).json["version"] == 2


@pytest.mark.parametrize("text", ["0", '"2"'])
async def test_a_change_of_another_version_is_412_and_changes_nothing(
    text: str, client: HttpClient, backend: NodeStandIn
) -> None:
    await patch(client, PAYLOAD)
    for answer in (
        await patch(client, {"limits": {"queue": "8KiB"}}, if_match=text),
        await roll_back(client, {"version": 0}, if_match=text),
    ):
        assert answer.error == (412, "precondition_failed", "version 1 is the newest")
    assert backend.centre.applied.version == 1


@pytest.mark.parametrize("text", ["", "W/1", '"a"', "-1", "1.0", "9" * 16])
async def test_what_is_no_version_is_400(text: str, client: HttpClient) -> None:
    answer = await patch(client, PAYLOAD, if_match=text)
    assert answer.error[:2] == (400, "bad_request")
    assert "If-Match is a version" in answer.error[2]


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (
            {"limits": {"payload": "lots"}},
            (400, "bad_request"),
            "configuration centre: limits.payload: expected a size",
        ),
        ({"limit": 1}, (400, "bad_request"), "limit: unknown key; the nearest known one is limits"),
        ({"heartbeat": {"minimum": "40s"}}, (400, "bad_request"), "heartbeat.interval: 30s is not between"),
        ({"auth": {"api_keys": ["hunter2"]}}, (400, "bad_request"), "a secret is not kept here"),
        ({"listen": {"http": "127.0.0.1:1"}}, (409, "needs_restart"), "listen.http: needs a restart"),
        ([], (400, "bad_request"), "expected a table of settings"),
        (b"", (400, "bad_request"), "not a merge patch: Input data was truncated"),
        (b"{", (400, "bad_request"), "not a merge patch"),
        (b'{"limits":{"payload":"\\ud800"}}', (400, "bad_request"), "not a merge patch"),
        (b'{"limits":' * 9000, (400, "bad_request"), "not a merge patch"),
        (b'{"limits":' + b"[" * 300 + b"]" * 300 + b"}", (400, "bad_request"), "nested too deeply"),
        (b'{"limits":{"payload":1e999}}', (400, "bad_request"), "not a merge patch"),
        (b" " * (PATCH_BYTES + 1), (413, "too_large"), "larger than"),
    ],
)
async def test_what_is_refused_is_named_and_changes_nothing(
    body: Any, error: tuple[int, str], words: str, client: HttpClient, backend: NodeStandIn
) -> None:
    answer = await patch(client, body)
    assert answer.error[:2] == error
    assert words in answer.error[2]
    assert "hunter2" not in answer.error[2]
    assert (backend.centre.applied.version, backend.kit.taken) == (0, [])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"version": 7}, 404, "there is no version 7"),
        ({"version": -1}, 404, "there is no version -1"),
        ({}, 400, "missing required field `version`"),
        ({"version": "1"}, 400, "Expected `int`"),
        ({"version": True}, 400, "Expected `int`"),
        ({"version": 1, "and": 2}, 400, "unknown field `and`"),
        ([], 400, "Expected `object`"),
    ],
)
async def test_what_cannot_be_gone_back_to(body: Any, status: int, words: str, client: HttpClient) -> None:
    answer = await roll_back(client, body)
    assert answer.error[0] == status
    assert words in answer.error[2]


async def test_while_the_broker_is_away_it_is_said_when_to_come_back(client: HttpClient, backend: NodeStandIn) -> None:
    backend.kit.broker.fail("configurations", BrokerUnavailable("away", retry_after_s=1.5), times=3)
    for answer in (
        await patch(client, PAYLOAD),
        await roll_back(client, {"version": 0}),
        await client.get(f"{PATH}/history"),
    ):
        assert answer.error[:2] == (503, "unavailable")
        assert answer.headers["retry-after"] == "2"
    assert backend.kit.taken == []
    assert (await client.get(PATH)).status == 200


async def test_it_needs_a_key_like_every_other_path(start: Start, backend: NodeStandIn) -> None:
    stranger = await start(keys=("k1",))
    assert (await patch(stranger, PAYLOAD)).status == 401
    assert (await roll_back(stranger, {"version": 0})).status == 401
    assert (await stranger.get(PATH)).status == 401
    assert (await stranger.get(f"{PATH}/history")).status == 401
    page = await start()
    assert (await patch(page, PAYLOAD, origin="http://evil.example")).status == 403
    assert backend.kit.taken == []


async def test_parameters_and_methods_are_held_to_the_same_rules_as_everywhere(client: HttpClient) -> None:
    assert (await client.get(f"{PATH}?key=limits")).error[:2] == (400, "bad_request")
    assert (await client.get(f"{PATH}/history?limit=0")).error[:2] == (400, "bad_request")
    assert (await client.get(f"{PATH}/rollback")).error[:2] == (405, "method_not_allowed")
    assert (await client.ask("DELETE", PATH)).error[2] == "this path takes GET, HEAD, PATCH"
    plain = await client.ask("PATCH", PATH, b"{}", [("content-type", "text/plain")])
    assert plain.error[:2] == (415, "unsupported_media_type")
    merge = await client.ask("PATCH", PATH, b"{}", [("content-type", "application/merge-patch+json")])
    assert merge.status == 200
