"""The Trio client."""
