"""The embedded broker: one process, no set-up."""
