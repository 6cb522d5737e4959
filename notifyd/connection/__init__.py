"""The life of one client, from its first byte to its last."""
