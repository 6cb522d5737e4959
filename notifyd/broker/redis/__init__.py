"""The shared broker: history, presence and sessions in Redis, messages over its pub/sub, any number of nodes."""
