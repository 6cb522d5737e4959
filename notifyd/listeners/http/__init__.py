"""The HTTP listener: API, page, tree, health."""
