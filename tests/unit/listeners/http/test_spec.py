"""`spec/http.md` says what the code does: every path, and every figure."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from notifyd.auth.claims import MAX_SUBJECT_BYTES
from notifyd.broker.base import VERSIONS_KEPT
from notifyd.listeners.http import app, body, configuring, connection, inspection, parameters, publishing, revoking
from notifyd.listeners.http.connection import HttpLimits
from notifyd.listeners.http.console_files import CONSOLE_FILES
from notifyd.listeners.http.guard import PAGE, PROBES

TEXT = " ".join((Path(__file__).parents[4] / "spec" / "http.md").read_text(encoding="utf-8").split())
LIMITS = HttpLimits()


def test_every_path_is_in_the_text(routes: list[Route]) -> None:
    paths = {route.path for route in routes}
    assert {path for path in paths - CONSOLE_FILES.keys() if path not in TEXT} == set()
    assert paths >= PAGE | PROBES
    told = set(re.findall(r"`(?:GET|POST|PATCH|DELETE) (/[^`?]*)", TEXT))
    assert told - paths == set()


@pytest.mark.parametrize(
    "sentence",
    [
        f"At most {LIMITS.connections} connections",
        f"head has {LIMITS.head_s:g} s",
        f"finished within {LIMITS.exchange_s:g} s",
        f"running requests have {LIMITS.grace_s:g} s",
        f"does not arrive within {body.BODY_S:g} s",
        f"did not answer within {app.ANSWER_S:g} s",
        f"the probe within {inspection.READY_S:g} s",
        f"a head above {connection.MAX_HEAD_BYTES // 1024} KiB",
        f"Up to {connection.DISCARD_BYTES // 1024**2} MiB of a refused body",
        f"are read away for up to {connection.DISCARD_S:g} s",
        f"above {publishing.BODY_PAYLOADS} times `limits.payload`",
        f"a list of 0 to {publishing.MAX_BATCH_ITEMS} of them",
        f'a duration such as `"{revoking.DEFAULT_TTL_S / 3600:g}h"`, which is the default',
        f"at least 1 second and at most {revoking.MAX_TTL_S / 86400:g} days",
        f"`user` has at most {MAX_SUBJECT_BYTES} bytes and `token_id` {revoking.MAX_TOKEN_ID_BYTES}",
        f"a body at most {revoking.BODY_BYTES // 1024} KiB",
        f"Up to {VERSIONS_KEPT} are kept",
        f"at most {configuring.MAX_AUTHOR_CHARACTERS} printable characters",
        f"A body is at most {configuring.PATCH_BYTES // 1024} KiB",
        f"`limit` is 1 to 1000, {parameters.TopicsQuery().limit} where",
    ],
)
def test_every_figure_is_in_the_text(sentence: str) -> None:
    assert sentence in TEXT
