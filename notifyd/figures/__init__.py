"""What a node says about itself, once a second, on topics of its own (`$sys:…`). Source: spec/system-topics.md."""
