"""The heart of a node: who listens, what each is owed, and one synchronous fan-out."""
