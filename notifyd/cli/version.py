"""`notifyd version`."""


def version() -> None:
    """Print the version of notifyd."""
    from notifyd import __version__

    print(f"notifyd {__version__}")
