"""A node without traces imports nothing of OpenTelemetry, and does not need it."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("opentelemetry", "google.protobuf", "requests"):
    sys.modules[name] = None  # as if it were not installed

import trio
import notifyd.broker.redis.broker, notifyd.cli.serve
from notifyd.node import open_node
from notifyd.settings import load

async def main():
    anywhere = "127.0.0.1:0"
    flags = {"auth.anonymous": True, "listen.websocket": anywhere, "listen.device": anywhere, "listen.http": anywhere}
    async with open_node(load(None, {}, flags)) as node:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        await node.context.hub.publish("a:b", 1, trace=trace)

trio.run(main)
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.", "google.protobuf", "requests."))))
"""


def test_nothing_of_opentelemetry_is_imported_where_no_endpoint_is_configured() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['google.protobuf']\n"), done.stderr
