"""The client for browsers, as a node serves it."""

from pathlib import Path

from tests.http_client import HttpClient

MODULE = Path(__file__).parents[4] / "protocol" / "js" / "notifyd.js"


async def test_the_module_is_served_as_it_is_to_every_page(client: HttpClient) -> None:
    answer = await client.get("/notifyd.js")
    assert answer.status == 200
    assert answer.body == MODULE.read_bytes()
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
