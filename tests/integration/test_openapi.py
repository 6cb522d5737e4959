"""Schemathesis plays a client that knows nothing but `spec/openapi.json`, on a running node."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from notifyd.listeners.http.openapi import OPERATIONS
from tests.reliability.node_process import NodeProcess, running_node

DOCUMENT = Path(__file__).parents[2] / "spec" / "openapi.json"
EXAMPLES = 10
KEY = "an-api-key-of-some-length"

CONFIG = """
[checks]
# Limits in bytes and rules between fields are more than a JSON Schema can say: what fits it may still be refused.
positive_data_acceptance.enabled = false

[[operations]]
include-name = "POST /v1/publish"
# A batch is answered with 200, and what is wrong with an item stands in its place.
checks.negative_data_rejection.enabled = false
"""

LAUNCH = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


@pytest.mark.guard(120)
async def test_nothing_breaks_the_node_or_its_own_description(tmp_path: Path) -> None:
    (config := tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    async with running_node({"AUTH__API_KEYS": f'["{KEY}"]'}) as node:
        node.api_key = KEY
        result = await explore(node, config)
        assert result.returncode == 0, result.stdout.decode()
        assert f"Tested: {len(OPERATIONS)}" in result.stdout.decode()
        assert node.is_running
        assert node.failures == []
        assert await node.metric("barrier_hits_total") == 0


async def explore(node: NodeProcess, config: Path) -> subprocess.CompletedProcess[bytes]:
    """Let Schemathesis send whatever the document allows, and much of what it does not."""
    url = f"http://127.0.0.1:{node.ports['http']}"
    command = [sys.executable, "-c", LAUNCH, "--config-file", str(config), "run", str(DOCUMENT), "--url", url]
    command += ["--header", f"Authorization: Bearer {KEY}", "--max-examples", str(EXAMPLES), "--no-color"]
    return await trio.run_process(command, check=False, capture_stdout=True, cwd=config.parent)
