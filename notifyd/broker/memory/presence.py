"""Who is there: the members of each topic."""

from protocol.messages import Member


class PresenceLists:
    """Members by topic, in the order they joined. A topic without members leaves nothing behind."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, Member]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def join(self, topic: str, member: Member) -> bool:
        """Add a member; False for a session that is there already: it keeps its place and its `since`."""
        return self._members.setdefault(topic, {}).setdefault(member.session, member) is member

    def leave(self, topic: str, session: str) -> bool:
        """Take a session out; False for one that is not there."""
        members = self._members.get(topic, {})
        left = members.pop(session, None) is not None
        if left and not members:
            del self._members[topic]
        return left

    def members(self, topic: str) -> list[Member]:
        """Return who is there, oldest first."""
        return list(self._members.get(topic, {}).values())
