"""Who is there: the members of each topic."""

from protocol.messages import Member


class PresenceLists:
    """Members by topic, in the order they joined. A topic without members leaves nothing behind."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Member]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def join(self, topic: str, member: Member) -> None:
        """Add a member; a session that is there already keeps its place and its `since`."""
        self._members.setdefault(topic, {}).setdefault(member.session, member)

    def leave(self, topic: str, session: str) -> None:
        """Take a session out; one that is not there changes nothing."""
        members = self._members.get(topic, {})
        if members.pop(session, None) is not None and not members:
            del self._members[topic]

    def members(self, topic: str) -> list[Member]:
        """Return who is there, oldest first."""
        return list(self._members.get(topic, {}).values())
