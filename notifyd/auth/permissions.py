"""What an identity may do with a topic."""

from collections.abc import Iterable

from notifyd.model import Identity
from notifyd.settings.types import Access
from protocol.topics import Pattern, is_reserved


def may_subscribe(identity: Identity, topic: str, access: Access) -> bool:
    """Whether `identity` may receive the topic, read its history and see who is present.

    A reserved topic (`$…`) needs a pattern that names it: no wildcard in the first part, and not "anyone".
    """
    if is_reserved(topic):
        named = (pattern for pattern in identity.subscribe if is_reserved(pattern.text))
        return access is Access.TOKEN and _covers(named, topic)
    return access is Access.ANYONE or (access is Access.TOKEN and _covers(identity.subscribe, topic))


def may_publish(identity: Identity, topic: str, access: Access) -> bool:
    """Whether `identity` may publish to the topic. Reserved topics (`$…`) belong to the server."""
    if is_reserved(topic):
        return False
    return access is Access.ANYONE or (access is Access.TOKEN and _covers(identity.publish, topic))


def _covers(patterns: Iterable[Pattern], topic: str) -> bool:
    return any(pattern.matches(topic) for pattern in patterns)
