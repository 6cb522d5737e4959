"""The API's own description: it is fresh, and nothing is served that it does not have."""

from pathlib import Path

import pytest
from starlette.routing import Route

from notifyd.listeners.http import openapi
from notifyd.listeners.http.guard import PAGE

SPEC = Path(__file__).parents[4] / "spec"


def test_the_files_in_spec_are_fresh(tmp_path: Path) -> None:
    openapi.write_documents(tmp_path)
    for name in (openapi.OPENAPI_FILE, openapi.ENDPOINTS_FILE):
        fresh, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, SPEC))
        assert kept == fresh, f"spec/{name} is stale: run `python -m notifyd.listeners.http.openapi`"


def test_everything_that_is_served_is_described_and_the_other_way_round(routes: list[Route]) -> None:
    served = {(route.path, method) for route in routes for method in route.methods or () if route.path not in PAGE}
    described = {(operation.path, operation.method.upper()) for operation in openapi.OPERATIONS}
    heads = {(path, "HEAD") for path, method in described if method == "GET"}  # RFC 9110 section 9.3.2: as GET
    assert served == described | heads


@pytest.mark.parametrize("operation", openapi.OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}")
def test_each_says_what_it_answers_and_refuses(operation: openapi.Operation) -> None:
    described = openapi.document()["paths"][operation.path][operation.method]
    answers = described["responses"]
    assert str(operation.status.value) in answers
    assert all(answer["description"] for answer in answers.values())
    if operation.path not in ("/health", "/ready"):
        assert {"400", "401", "503", "504"} <= answers.keys()
    assert ("415" in answers) is (operation.body is not None)
