"""How everything that notifyd keeps in Redis is called: keys and channels.

In a Cluster the part of a name between braces, its hash tag, decides where a key lives. All that belongs to one topic
carries the topic there, so that one script can work on it. `{`, `}` and `%` within a part are written as in a URL: the
tag is then always exactly the topic, whatever it contains.
"""

import re
from hashlib import blake2b
from urllib.parse import unquote

from notifyd.broker.memory.keys import DIGEST_BYTES

_SPECIAL = re.compile("[{}%]")
_GLOB = re.compile(r"[\\*?\[\]^-]")


class Names:
    """The names under one `prefix` (`broker.prefix`). No two of them are ever equal."""

    __slots__ = (
        "_channel",
        "_control",
        "_key",
        "_members",
        "_nodes",
        "_prefix",
        "_presence",
        "_session",
        "_stream",
        "_topic",
    )

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix = _encoded(prefix)
        self._topic = f"{prefix}:topic:{{"
        self._stream = f"{prefix}:stream:{{"
        self._key = f"{prefix}:key:{{"
        self._presence = f"{prefix}:presence:{{"
        self._session = f"{prefix}:session:{{"
        self._members = f"{prefix}:members:{{"
        self._nodes = f"{prefix}:{{nodes}}"
        self._channel = f"{prefix}:channel:{{"
        self._control = f"{prefix}:control"

    # --- a topic ------------------------------------------------------------------------------------------------------

    def topic(self, topic: str) -> str:
        """Name the hash of what is known of a topic beside its messages (lua/topic.lua)."""
        return f"{self._topic}{_encoded(topic)}}}"

    def stream(self, topic: str) -> str:
        """Name the stream of a topic's kept messages."""
        return f"{self._stream}{_encoded(topic)}}}"

    def key(self, topic: str, key: str) -> str:
        """Name what remembers the answer to a publish with this idempotency key."""
        return f"{self._key}{_encoded(topic)}}}:{blake2b(key.encode(), digest_size=DIGEST_BYTES).hexdigest()}"

    def presence(self, topic: str) -> str:
        """Name the hash of a topic's members."""
        return f"{self._presence}{_encoded(topic)}}}"

    def channel(self, topic: str) -> str:
        """Name the channel on which a topic's messages and the changes of its presence travel."""
        return f"{self._channel}{_encoded(topic)}}}"

    # --- a session, a node --------------------------------------------------------------------------------------------

    def session(self, session: str) -> str:
        """Name the hash of a session that can be resumed."""
        return f"{self._session}{_encoded(session)}}}"

    def members(self, node: str) -> str:
        """Name the set of the topics in which a node has members."""
        return f"{self._members}{_encoded(node)}}}"

    def nodes(self) -> str:
        """Name the nodes with their times of expiry."""
        return self._nodes

    def revoked(self) -> str:
        """Name the revocations that have not expired."""
        return f"{self._prefix}:revoked"

    def configurations(self) -> str:
        """Name the versions of the configuration: in a Cluster where the channel is that tells of them."""
        return f"{self._prefix}:configurations:{{{self._control}}}"

    def control(self) -> str:
        """Name the channel that every node listens to."""
        return self._control

    def control_of(self, node: str) -> str:
        """Name the channel that one node listens to."""
        return f"{self._control}:{{{_encoded(node)}}}"

    # --- and back -----------------------------------------------------------------------------------------------------

    def topic_of_channel(self, channel: str | bytes) -> str:
        """Return the topic of a `channel` name. Raises ValueError for any other name."""
        return _inside(self._channel, channel)

    def topic_of_key(self, name: str | bytes) -> str:
        """Return the topic of a `topic` name. Raises ValueError for any other name."""
        return _inside(self._topic, name)

    def every_topic(self) -> str:
        """Return the pattern, as SCAN takes it, of all `topic` names under this prefix."""
        return f"{_GLOB.sub(lambda found: chr(92) + found[0], self._topic)}*}}"


def _encoded(part: str) -> str:
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", part) if _SPECIAL.search(part) else part


def _inside(before: str, name: str | bytes) -> str:
    text = name.decode() if isinstance(name, bytes) else name
    part = text[len(before) : -1]
    if not text.startswith(before) or not text.endswith("}") or "{" in part or "}" in part:
        raise ValueError(f"{text[:300]!r} is not the name of a topic's")
    return unquote(part) if "%" in part else part
