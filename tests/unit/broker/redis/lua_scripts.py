"""Scripts that tests write themselves."""

from pathlib import Path

from notifyd.broker.redis.scripts import Script

COUNT = "return {redis.call('INCR', KEYS[1]), ARGV[1], ARGV[#ARGV - 2], ARGV[#ARGV - 1]}"
"""Counts in its key; answers the count, its first argument and the two ids it was called with."""


def write_script(folder: Path, text: str, name: str = "count") -> Script:
    """Make a script of this text."""
    (folder / f"{name}.lua").write_text(text)
    return Script(name, folder=folder)
