"""The embedded broker: one process, no set-up."""

from notifyd.broker.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
