"""notifyd: a distributed real-time notification server for devices and browsers, on Trio."""

__version__ = "0.1.0"
