"""The configuration of a node: what it is (`types`), how it is read (`loading`), and what goes together (`checks`)."""

from notifyd.settings.loading import load
from notifyd.settings.types import (
    FIXED_SECTIONS,
    Access,
    Algorithm,
    AuthSettings,
    BrokerSettings,
    ConnectionLimit,
    DebugSettings,
    HeartbeatSettings,
    LimitSettings,
    ListenSettings,
    NodeSettings,
    Overflow,
    Rate,
    SessionSettings,
    Settings,
    Tls,
    TokenKey,
    TopicPolicy,
)
from notifyd.settings.values import Address, Secret, Url

__all__ = [
    "FIXED_SECTIONS",
    "Access",
    "Address",
    "Algorithm",
    "AuthSettings",
    "BrokerSettings",
    "ConnectionLimit",
    "DebugSettings",
    "HeartbeatSettings",
    "LimitSettings",
    "ListenSettings",
    "NodeSettings",
    "Overflow",
    "Rate",
    "Secret",
    "SessionSettings",
    "Settings",
    "Tls",
    "TokenKey",
    "TopicPolicy",
    "Url",
    "load",
]
