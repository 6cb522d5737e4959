"""What an identity may do with a topic."""

from collections.abc import Iterable

from notifyd.model import Identity
from notifyd.settings.types import Access
from protocol.topics import Pattern, is_reserved


def may_subscribe(identity: Identity, topic: str, access: Access) -> bool:
    """Whether `identity` may receive the topic, read its history and see who is present.

    A reserved topic (`$…`) is for operators, whatever a token says; who shows an API key may have every other topic.
    """
    if is_reserved(topic):
        return identity.operator
    if identity.api_key is not None or access is Access.ANYONE:
        return True
    return access is Access.TOKEN and _covers(identity.subscribe, topic)


def may_publish(identity: Identity, topic: str, access: Access) -> bool:
    """Whether `identity` may publish to the topic. Reserved topics (`$…`) belong to the server."""
    if is_reserved(topic):
        return False
    if identity.api_key is not None or access is Access.ANYONE:
        return True
    return access is Access.TOKEN and _covers(identity.publish, topic)


def _covers(patterns: Iterable[Pattern], topic: str) -> bool:
    return any(pattern.matches(topic) for pattern in patterns)
