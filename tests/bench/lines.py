"""What the measurements' own processes say on their standard output."""

import trio


async def read_line(stdout: trio.abc.ReceiveStream) -> bytes:
    """Read one line, which may come in pieces, without its end. Raises AssertionError when the process ends before."""
    line = b""
    while not line.endswith(b"\n"):
        piece = await stdout.receive_some()
        assert piece, f"the process ended after saying {line!r}"
        line += piece
    return line.rstrip()
