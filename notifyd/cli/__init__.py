"""The `notifyd` command: one file a subcommand."""
