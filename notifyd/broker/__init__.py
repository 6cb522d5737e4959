"""Where messages, positions, presence and sessions live: what a broker promises, and the brokers that keep it."""
