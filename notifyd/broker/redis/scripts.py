"""The Lua scripts that run inside Redis, each one atomic step there.

A script is called by the SHA-1 of its text (EVALSHA); a server that does not know it, being new or flushed, is sent the
text itself (EVAL) and knows it from then on.

Source: https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"


class Script:
    """A script: its `name`, its `text` and the `sha` by which a server knows it."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, *, preludes: Sequence[str] = (), folder: Path = FOLDER) -> None:
        """Read lua/<name>.lua, behind those files there that `preludes` names. It blocks: for start-up.

        Raises FileNotFoundError where there is none.
        """
        self.name = name
        self.text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*preludes, name))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r}, sha={self.sha!r})"
